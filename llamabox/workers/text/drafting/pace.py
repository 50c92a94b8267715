"""How long drafting may take, by the clock: what it takes counts in steps of the engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Seq

from llamabox.engine.drafting.drafter import Key, Wish

LEAST_CHUNK = 32
"""Cells that a step may always catch up with, of all texts together."""

LONGEST_PAUSE = 0.05
"""Seconds that a step may catch up for at most, however long the steps themselves take."""

LEAST_CHANCE = 0.5
"""A draft goes on while it is as likely as that to come, as long as nothing is known of what a round costs."""

FORGETTING = 8
"""A mean follows what is measured by this part of the difference."""


class Pace:
    """The seconds of the engine's steps, of a round of drafting and of a cell of catching up. Owned by one thread.

    Steps are what lies between two calls of the drafter.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._left = 0.0  # when the last call ended
        self._step = 0.0  # these are 0 as long as they are not known
        self._round = 0.0
        self._cell = 0.0

    def enter(self, n_steps: int) -> None:
        """A call begins, so many steps after the last one; 0: it is not known how many."""
        if n_steps:
            seconds = (self._clock() - self._left) / n_steps
            self._step = _mean(self._step, min(seconds, 4 * self._step) if self._step else seconds)

    def leave(self) -> None:
        """A call ends."""
        self._left = self._clock()

    def now(self) -> float:
        return self._clock()

    def caught_up(self, n_cells: int, begun: float) -> None:
        """A batch with so many cells was computed since `begun`."""
        self._cell = _mean(self._cell, (self._clock() - begun) / n_cells)

    def drafted(self, begun: float) -> None:
        """A round of drafting, one token of each text, was computed since `begun`."""
        self._round = _mean(self._round, self._clock() - begun)

    @property
    def chunk(self) -> int:
        """Cells that a step may catch up with: as many as take as long as a step."""
        return max(LEAST_CHUNK, int(min(self._step, LONGEST_PAUSE) / self._cell)) if self._cell else LEAST_CHUNK

    @property
    def least_chance(self) -> float:
        """What a round costs, in steps: the chance below which a further token costs more than it can ever save."""
        return self._round / self._step if self._round and self._step else LEAST_CHANCE


class Steps:
    """How many steps the engine makes between two calls of a drafter, by how far the texts went on."""

    def __init__(self) -> None:
        self._texts: dict[Key, int] = {}  # tokens of each at the last call, and those accepted since

    def since(self, wishes: Seq[Wish]) -> int:
        """Steps since the last call: at most as many as each text went on by. 0 where all texts are new."""
        steps = [wish.n_generated - self._texts[wish.key] for wish in wishes if wish.key in self._texts]
        self._texts = {wish.key: wish.n_generated for wish in wishes}
        return max(0, min(steps, default=0))

    def accepted(self, key: Key, n_tokens: int) -> None:
        """So many tokens of a text came by a draft: tokens that were not drafted tell how many steps there were."""
        if key in self._texts:
            self._texts[key] += n_tokens


def _mean(known: float, seconds: float) -> float:
    return known + (seconds - known) / FORGETTING if known else seconds
