"""How long drafts may be, so that a step brings the most tokens a second."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import chain
from math import inf
from typing import Protocol

from llamabox.engine.drafting.costs import StepCosts
from llamabox.engine.drafting.drafter import Draft
from llamabox.engine.drafting.passes import Length, passes
from llamabox.engine.drafting.survival import FORCED_GAIN, Curve, Survival
from llamabox.engine.seams import RunnerFacts

WORTHWHILE = 1.03
"""Drafts must bring so many times the tokens a second: what is measured and learnt is never quite right."""

PATIENCE = 2.0
"""Beside sequences that get no drafts a step may take so many times as long as without: as beside prompts."""

SLOPES = {True: 0.03, False: 0.2}
"""What a further row is taken to cost before it was measured, in passes of one row, by whether rows mix: on GPUs."""

RUNGS = (0.9, 0.75, 0.6, 0.45, 0.32, 0.22, 0.14, 0.08, 0.04)
"""Chances that the last token of each draft must have: one of these rungs is the best."""

LONG_STEP = 0.06
"""Seconds that a step with drafts may take, or as long as with PATIENCE: who comes meanwhile waits for its end."""

LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64)
"""Of a lone draft: one of them is near enough the best."""

CAPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""Of the surest drafts together: so long at the most."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step without drafts: its rows in the order of its sequences, and the tokens that it brings."""

    rows: Seq[Length]
    n_tokens: int
    n_context: int
    """The mean of its sequences' cells."""

    seconds_left: float = inf
    """Until a stream that keeps to a speed limit, and is not in this step, is due."""

    n_forced: int = 0
    """Cells of these sequences that a grammar has forced: they are computed in any step."""

    @property
    def worth(self) -> float:
        """In tokens that had to be sampled."""
        return self.n_tokens + FORCED_GAIN * self.n_forced


@dataclass(frozen=True, slots=True)
class Offer:
    """A draft for the sequence whose rows are the `index`-th of a step. Up to `n_most` tokens may be verified.

    None from the first on that is less likely than `p_min` to come behind those before it. A model's own guess of that
    has ended its draft already.
    """

    index: int
    draft: Draft
    n_most: int
    p_min: float = 0.0
    forced: Seq[bool] = ()
    """Whether a grammar forces each token, provided that those before it come; empty: it forces none."""


class Price(Protocol):
    """Chooses the lengths of drafts. No text depends on it."""

    def lengths(self, step: Step, offers: Seq[Offer], room: int) -> list[int]:
        """How many tokens of each offer are verified, `room` in all."""

    def promises(self, draft: Draft) -> float:
        """How many tokens of a draft are expected to come."""

    def seconds(self, step: Step) -> float:
        """What a step is expected to take; 0 as long as nothing was measured."""

    def pays(self, step: Step, n_drafts: int, length: float, promise: float, seconds: float) -> bool:
        """Whether drafts of a `length` that bring `promise` tokens each are worth the `seconds` that they all take."""

    def verified(self, draft: Draft, n_verified: int, n_came: int) -> None:
        """Of the first `n_verified` tokens of a draft the first `n_came` came, whether they were in a batch or not."""

    def computed(self, rows: Seq[Length], n_context: int, seconds: float) -> None:
        """A step of these rows and nothing else took so many seconds."""


class LearntPrice:
    """Weighs what a further row costs, as measured, against the tokens that it brings, as learnt. Engine's thread.

    It knows that unequal lengths cost a pass each where sequences have streams of their own.
    """

    def __init__(self, facts: RunnerFacts, *, is_unified: bool) -> None:
        self._n_ubatch = facts.n_ubatch
        self._is_unified = is_unified
        self._survival = Survival()
        self._costs = StepCosts(SLOPES[facts.mixes], facts.n_batch)

    def promises(self, draft: Draft) -> float:
        gains = self._survival.curve(draft).gains
        return gains[min(len(draft.tokens), len(gains) - 1)]

    def verified(self, draft: Draft, n_verified: int, n_came: int) -> None:
        self._survival.observe(draft, n_verified, n_came)

    def computed(self, rows: Seq[Length], n_context: int, seconds: float) -> None:
        self._costs.observe(self._passes(rows), n_context, seconds)

    def seconds(self, step: Step) -> float:
        costs = self._costs.of(step.n_context)
        return 0.0 if costs is None else self._seconds(step.rows, costs.table())

    def pays(self, step: Step, n_drafts: int, length: float, promise: float, seconds: float) -> bool:
        costs = self._costs.of(step.n_context)
        if costs is None:
            return True
        table = costs.table()
        base = self._seconds(step.rows, table)
        rows = [(seq_id, n + round(length) * (i < n_drafts)) for i, (seq_id, n) in enumerate(step.rows)]
        drafted = self._seconds(rows, table) + seconds
        return (step.worth + n_drafts * promise) * base > WORTHWHILE * step.worth * drafted

    def lengths(self, step: Step, offers: Seq[Offer], room: int) -> list[int]:
        best = [0] * len(offers)
        costs = self._costs.of(step.n_context)
        if costs is None or not offers:  # the first step ever shows what a row costs
            return best
        table = costs.table()
        plans = _Plans(step.rows, [self._survival.curve(offer.draft).under(offer.forced) for offer in offers], offers)
        base = self._seconds(step.rows, table)
        best_rate = WORTHWHILE * step.worth / base
        longest, beside_others = _bounds(step, base)
        n_rows = sum(n for _, n in step.rows)
        if plans.surest <= best_rate * _least_slope(table, n_rows):  # not even the surest token of all
            return best
        for lengths in plans.alike() if not self._is_unified and len(offers) > 1 else plans.candidates():
            n_drafted = sum(lengths)
            if not 0 < n_drafted <= room or n_rows + n_drafted >= len(table):
                continue
            expected = step.worth + plans.gain(lengths)
            if expected <= best_rate * table[n_rows + n_drafted]:  # not even as one pass
                continue
            seconds = self._seconds(plans.rows(lengths), table)
            all_gain = len(lengths) - lengths.count(0) == step.n_tokens
            if expected / seconds > best_rate and seconds <= (longest if all_gain else beside_others):
                best, best_rate = lengths, expected / seconds
        return best

    def _passes(self, rows: Seq[Length]) -> list[int]:
        return passes(rows, self._n_ubatch, is_unified=self._is_unified)

    def _seconds(self, rows: Seq[Length], table: list[float]) -> float:
        most = len(table) - 1
        return sum(table[n] if n <= most else table[most] * n / most for n in self._passes(rows))


class _Plans:
    """Lengths that may be the best, for one step."""

    def __init__(self, rows: Seq[Length], curves: list[Curve], offers: Seq[Offer]) -> None:
        self._rows = rows
        self._curves = curves
        self._offers = offers
        self._most = [
            min(offer.n_most, len(offer.draft.tokens), _n_likely(offer, curve))
            for offer, curve in zip(offers, curves, strict=True)
        ]

    @property
    def surest(self) -> float:
        """The chance of the likeliest token."""
        return max(-curve.falling[0] for curve in self._curves)

    def candidates(self) -> Iterator[list[int]]:
        """Of one draft several lengths; of more all tokens that are as likely to come."""
        if len(self._offers) == 1:
            most = self._most[0]
            yield from ([n] for n in LENGTHS if n < most)
            yield [most]
            return
        last: list[int] = []
        for rung in RUNGS:
            if rung > self.surest:
                continue
            lengths = [
                min(bisect_right(curve.falling, -rung), most)
                for curve, most in zip(self._curves, self._most, strict=True)
            ]
            if lengths != last:
                if not any(last):  # of what is nearly sure, less may be better all the same
                    yield from ([min(n, cap) for n in lengths] for cap in CAPS if cap < max(lengths))
                last = lengths
                yield lengths

    def alike(self) -> Iterator[list[int]]:
        """The candidates, and for each the same with one length for all that have at least as much."""
        for lengths in self.candidates():
            yield lengths
            drafted = sorted(filter(None, lengths))
            if drafted and drafted[0] != drafted[-1]:
                for length in {drafted[0], drafted[len(drafted) // 2], drafted[-1]}:
                    yield [length if n >= length else 0 for n in lengths]

    def gain(self, lengths: list[int]) -> float:
        """Tokens that are expected to come."""
        return sum(curve.gains[n] for curve, n in zip(self._curves, lengths, strict=True))

    def rows(self, lengths: list[int]) -> list[Length]:
        """The rows of the step with drafts of these lengths."""
        rows = list(self._rows)
        for offer, length in zip(self._offers, lengths, strict=True):
            seq_id, n_rows = rows[offer.index]
            rows[offer.index] = (seq_id, n_rows + length)
        return rows


def _bounds(step: Step, base: float) -> tuple[float, float]:
    """The most seconds of a step in which all sequences have drafts, and of one in which some have none.

    `base` are its seconds without drafts.
    """
    until_due = max(base, step.seconds_left)
    return min(until_due, max(LONG_STEP, PATIENCE * base)), min(until_due, PATIENCE * base)


def _least_slope(table: list[float], n_rows: int) -> float:
    """Seconds that a further row costs at the least beside `n_rows`, however many there are."""
    at = min(n_rows, len(table) - 2)
    return min((table[at + n] - table[at]) / n for n in LENGTHS if at + n < len(table))


def _n_likely(offer: Offer, curve: Curve) -> int:
    """How many tokens of a draft have chances, and none below its p_min."""
    if offer.p_min <= 0 or offer.draft.chances:
        return len(curve.falling)
    before = chain([-1.0], curve.falling)
    behind = enumerate(zip(before, curve.falling, strict=False))
    return next((i for i, (all_before, all_come) in behind if all_come > offer.p_min * all_before), len(curve.falling))
