"""A clock for whoever measures silence: it does not jump where the one who measures was held up himself."""

from __future__ import annotations

import time
from collections.abc import Callable


class SteadyClock:
    """Seconds, as far as its owner could run: between two looks it advances by twice their usual distance at most.

    After a machine or a process was asleep, stopped or starved, nobody else's time is up because of that.
    """

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`interval`: usual seconds between two looks."""
        self.now = 0.0
        self._most = 2 * interval
        self._clock = clock
        self._last = clock()

    def look(self) -> float:
        """The time now, which `now` stays until the next look."""
        last, self._last = self._last, self._clock()
        self.now += min(self._last - last, self._most)
        return self.now
