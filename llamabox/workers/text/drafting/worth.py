"""Whether a draft model pays: how soon texts get their next tokens with its drafts and without, as measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf

from llamabox.engine.drafting.drafter import Key

logger = logging.getLogger(__name__)

N_WITHOUT, N_WITH = 8, 16
"""Cycles that are measured without drafts, and then with drafts, before it is judged."""

RENEWAL = 64
"""While it pays, every so many cycles one without drafts tells whether it still does."""

PROBE = 8
"""Cycles with drafts that try, where it did not pay, whether it does by now."""

ALLOWANCE = 2.0
"""Seconds that drafts may cost before it is known whether they pay."""

SHARE = 0.01
"""Part of the time that such drafts may cost later on."""

MOST_SAVED = 10.0
"""Seconds of that share which are saved up at most, for a trial that begins with a long prompt."""

OUTLIER = 4.0
"""A cycle counts as so many usual ones at most: prompts of others and other programs lengthen some."""

FORGETTING = 32
"""A mean follows what is measured by this part of the difference."""


@dataclass(slots=True)
class _Mean:
    """What cycles took and brought in the mean, of which later ones count for more."""

    seconds: float = 0.0
    n_tokens: float = 1.0  # of each text
    n_measured: int = 0

    @property
    def a_token(self) -> float:
        """Seconds until a text's next token."""
        return self.seconds / self.n_tokens

    def add(self, seconds: float, n_tokens: float) -> None:
        self.n_measured += 1
        if self.n_measured > 1:
            seconds = min(seconds, OUTLIER * self.seconds)
        part = 1 / min(self.n_measured, FORGETTING)
        self.seconds += (seconds - self.seconds) * part
        self.n_tokens += (n_tokens - self.n_tokens) * part


@dataclass(slots=True)
class _Record:
    """What was measured with about so many texts side by side."""

    without: _Mean = field(default_factory=_Mean)
    drafting: _Mean = field(default_factory=_Mean)
    n_cycles: int = 0
    n_probes: int = 0  # cycles that are left of a probe
    has_paid: bool | None = None  # the last verdict; None: there was none
    budget: float = ALLOWANCE  # seconds that drafts may cost which are not known to pay

    @property
    def is_known(self) -> bool:
        return self.without.n_measured >= N_WITHOUT and self.drafting.n_measured >= N_WITH

    @property
    def pays(self) -> bool:
        return self.drafting.a_token < self.without.a_token

    @property
    def on_trust(self) -> bool:
        """Whether drafts are not known to pay."""
        return not (self.is_known and self.pays)


class Worth:
    """Decides before each step whether the draft model is asked. Owned by the engine's thread.

    A cycle is the time from one call of the drafter to the next. What it brought is how many tokens the texts have
    that were there at both. Cycles with drafts are measured against cycles without, apart for one text, two, up to
    four, and so on. Drafts that are not known to pay are made on a budget of time.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._records: dict[int, _Record] = {}
        self._began = 0.0
        self._before: Mapping[Key, int] = {}  # tokens of each text as the cycle began
        self._has_drafted: bool | None = False  # in this cycle; None: it caught up, and drafted nothing
        self._has_said = False

    @property
    def budget(self) -> float:
        """Seconds that drafts may cost in this cycle."""
        return self._record.budget if self._record.on_trust else inf

    def enter(self, texts: Mapping[Key, int]) -> bool:
        """A cycle begins with these texts, and so many tokens of each. Whether to draft in it."""
        now = self._clock()
        self._close(texts, now - self._began)
        self._began, self._before, self._has_drafted = now, texts, False
        record = self._record
        record.n_cycles += 1
        if record.without.n_measured < N_WITHOUT:
            return False
        if not record.is_known:
            return record.budget > 0
        if record.pays:
            return record.n_cycles % RENEWAL != 0
        if record.n_probes == 0:
            a_cycle = record.drafting.seconds - record.drafting.n_tokens * record.without.a_token
            if record.budget < PROBE * a_cycle:
                return False
            record.n_probes = PROBE
        record.n_probes -= 1
        return True

    def leave(self, *, has_drafted: bool | None) -> None:
        """The call ends. `has_drafted` is None where it caught up with texts alone."""
        self._has_drafted = has_drafted

    @property
    def _record(self) -> _Record:
        return self._records.setdefault(len(self._before).bit_length(), _Record())

    def _close(self, texts: Mapping[Key, int], seconds: float) -> None:
        """Learn from the cycle that ends now."""
        common = [key for key in texts if key in self._before]
        n_tokens = sum(texts[key] - self._before[key] for key in common)
        if n_tokens <= 0:
            return
        record = self._record
        n_each = n_tokens / len(common)
        was_known = record.is_known
        usual = record.without.a_token
        if self._has_drafted is not False and record.on_trust:
            record.budget = max(record.budget - (seconds - usual * n_each), -MOST_SAVED)
        if usual:
            seconds = min(seconds, OUTLIER * n_each * usual)
        record.budget = min(record.budget + SHARE * seconds, MOST_SAVED)
        if self._has_drafted is not None:
            (record.drafting if self._has_drafted else record.without).add(seconds, n_each)
        if record.is_known:
            if not was_known:
                record.budget = min(record.budget, 0.0)
            if record.pays is not record.has_paid:
                record.has_paid = record.pays
                self._say(record)

    def _say(self, record: _Record) -> None:
        """Say once that it does not pay; what changes later is for those who look closely."""
        level = logging.DEBUG if record.pays or self._has_said else logging.INFO
        self._has_said = self._has_said or not record.pays
        logger.log(
            level,
            "the draft model %s with %s: the next token takes %.2f ms with its drafts, %.2f ms without%s",
            "pays" if record.pays else "does not pay",
            _named(len(self._before)),
            1000 * record.drafting.a_token,
            1000 * record.without.a_token,
            "" if record.pays else "; it is asked now and then only",
        )


def _named(n_texts: int) -> str:
    return "one text" if n_texts == 1 else f"{n_texts} texts side by side"
