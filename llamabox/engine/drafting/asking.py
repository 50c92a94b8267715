"""Which drafters are asked for which sequences: one that takes its time is asked where that pays."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq

from llamabox.engine.drafting.drafter import Draft, Drafter, Wish
from llamabox.engine.drafting.price import Price, Step
from llamabox.engine.sequence import Sequence

logger = logging.getLogger(__name__)

WEIGHT = 0.1
"""Of the newest measurement."""

OUTLIER = 2.0
"""A round counts as at most so many usual ones: one may have been held up by another program."""

CHEAP = 0.01
"""Part of a step that a drafter may always take."""

TRIED = 8
"""Rounds in which a drafter is asked whatever it takes, to learn what it is worth."""

TRIED_EACH = 2
"""The same for each number of texts that it drafts for together."""

PROBING = 0.005
"""Part of the time that goes into asking a drafter of which it is known that it does not pay."""

HOPE = 2.0
"""Tokens that a draft of a drafter is taken to bring before it has made one."""

Found = dict[Sequence, tuple[Drafter, Draft]]


class _Worth:
    """What a drafter takes and brings: means of its latest rounds."""

    def __init__(self) -> None:
        self.n_rounds = 0  # in which it drafted
        self.promise = HOPE  # tokens of a draft that come
        self.length = HOPE  # of a draft
        self.credit = 0.0  # seconds that may go into asking it in vain
        self.is_told = False
        # By the number of sequences that it is asked for together:
        self.n_asked: defaultdict[int, int] = defaultdict(int)
        self._counts: defaultdict[int, int] = defaultdict(int)  # rounds in which it drafted
        self._seconds: dict[int, float] = {}  # of such a round

    def asked(self, n_asking: int, seconds: float, drafts: Seq[Draft], promises: Seq[float]) -> None:
        self.credit = max(self.credit - seconds, -10 * max(seconds, self.seconds(n_asking)))
        self.n_asked[n_asking] += 1
        if not drafts:
            return
        self.n_rounds += 1
        self._counts[n_asking] += 1
        known = self._seconds.get(n_asking, seconds)
        if self._counts[n_asking] <= TRIED:
            self._seconds[n_asking] = min(known, seconds)  # the first ones also make what is there from then on
        else:
            self._seconds[n_asking] = known + WEIGHT * (min(seconds, OUTLIER * known) - known)
        weight = max(WEIGHT, 1 / self.n_rounds)
        self.promise += weight * (sum(promises) / len(promises) - self.promise)
        self.length += weight * (sum(len(draft.tokens) for draft in drafts) / len(drafts) - self.length)

    def seconds(self, n_asking: int) -> float:
        """Those of a round for so many sequences; 0 if there was none yet.

        Of another number of them a round takes less than in proportion, but not the same: the mean of both is taken.
        """
        if not self._seconds:
            return 0.0
        nearest = min(self._seconds, key=lambda known: abs(known - n_asking))
        return self._seconds[nearest] * (1.0 + n_asking / nearest) / 2.0

    def earn(self, seconds: float) -> None:
        """A step took so many seconds: some more may go into asking in vain."""
        self.credit = min(self.credit + PROBING * seconds, 2 * max(self._seconds.values(), default=0.0))


class Asking:
    """Asks drafters one after the other, later ones for what the earlier ones have no better draft of. Engine's thread.

    The time of a drafter that computes is measured. It is asked if the tokens that it brings are worth that, as far as
    is known, and seldom otherwise, to see whether that is still so. Others take microseconds but for what is new to
    them: a measured mean of those would speak against them for long.
    """

    def __init__(self, drafters: Seq[Drafter], price: Price, clock: Callable[[], float]) -> None:
        self._drafters = drafters
        self._price = price
        self._clock = clock
        self._worths = [_Worth() for _ in drafters]

    def ask(self, wishes: Mapping[Sequence, Wish], step: Callable[[], Step]) -> Found:
        """The most promising draft of each sequence, of those that have one. `step` makes the step without drafts."""
        found: Found = {}
        promises: dict[Sequence, float] = {}
        for drafter, worth in zip(self._drafters, self._worths, strict=True):
            asking = [one for one in wishes if promises.get(one, 0.0) < worth.promise]
            if not asking or (drafter.computes and not self._is_worth_it(worth, len(asking), step())):
                continue
            begun = self._clock()
            drafts = drafter.propose([wishes[one] for one in asking])
            seconds = self._clock() - begun
            made = [(one, draft) for one, draft in zip(asking, drafts, strict=True) if draft is not None]
            promised = [self._price.promises(draft) for _, draft in made]
            worth.asked(len(asking), seconds, [draft for _, draft in made], promised)
            for (sequence, draft), promise in zip(made, promised, strict=True):
                if promise > promises.get(sequence, -1.0):
                    found[sequence], promises[sequence] = (drafter, draft), promise
        return found

    def computed(self, seconds: float) -> None:
        """A step took so many seconds."""
        for worth in self._worths:
            worth.earn(seconds)

    def _is_worth_it(self, worth: _Worth, n_asking: int, step: Step) -> bool:
        if worth.n_rounds < TRIED or worth.n_asked[n_asking] < TRIED_EACH:
            return True
        step_seconds, seconds = self._price.seconds(step), worth.seconds(n_asking)
        if seconds <= CHEAP * step_seconds:
            return True
        if self._price.pays(step, n_asking, worth.length, worth.promise, seconds):
            return True
        if not worth.is_told:
            worth.is_told = True
            logger.info(
                "a draft of %.1f tokens takes %.1f ms and brings %.1f, which does not pay beside steps of %.1f ms: "
                "it is made now and then, to see whether it does",
                *(worth.length, 1e3 * seconds, worth.promise, 1e3 * step_seconds),
            )
        return worth.credit >= seconds
