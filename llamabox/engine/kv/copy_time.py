"""How long states may be copied between two steps, while streams wait for their next token."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

FIRST_COST = 1e-9
"""Seconds a byte, until a copy was measured: memory that is written for the first time takes its time."""

WEIGHT = 0.5
"""Of the newest measurement in the moving average."""

HOPE = 0.99
"""After each copy that is not made the cost is believed to be so much of itself: no bad measurement stands for ever."""


class CopyTime:
    """A budget of seconds for each step, and what copies cost. Owned by the engine's thread."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._cost = FIRST_COST
        self._whole = self._left = float("inf")

    def begin_step(self, seconds: float) -> None:
        """From now on copies may take so long; inf where nobody waits for a token."""
        self._whole = self._left = seconds

    def fits(self, n_bytes: int) -> bool:
        """Whether a copy of so many bytes may be made in this step."""
        return n_bytes * self._cost <= self._left

    def may_fit_later(self, n_bytes: int) -> bool:
        """Whether it may in a step in which nothing else is copied. Asked when it does not fit now."""
        self._cost *= HOPE
        return n_bytes * self._cost <= self._whole

    def run(self, n_bytes: int, work: Callable[[], T]) -> T:
        """Make a copy of so many bytes, and learn from it."""
        start = self._clock()
        done = work()
        seconds = self._clock() - start
        self._left -= seconds
        if n_bytes:
            self._cost += WEIGHT * (seconds / n_bytes - self._cost)
        return done
