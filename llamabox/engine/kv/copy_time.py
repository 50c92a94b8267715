"""How long states may be copied between two steps, while streams wait for their next token."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

FIRST_COST = 1e-9
"""Seconds a byte until a copy has been measured. It is high, as memory is slow when it is first written."""

WEIGHT = 0.5
"""Weight of the newest measurement in the moving average."""

HOPE = 0.99
"""Factor on the cost after each copy that is not made, so that no bad measurement stands for ever."""

MIN_COPY = 8
"""Least number of cells for which a copy between streams pays."""

COPY_SHARE = 256
"""A copy between streams pays if one cell in this many is of use: it moves the whole stream.

A cell is copied some 1,000 times as fast as computed (23 KB against 4.5 ms for a model of 135 M on a CPU; larger models
and GPUs are further apart).
"""


def least_copied(n_ctx: int) -> int:
    """Least number of cells for which a copy between streams of `n_ctx` cells pays."""
    return max(MIN_COPY, n_ctx // COPY_SHARE)


class CopyTime:
    """A budget of seconds between two decodes, and what copies cost. Owned by the engine's thread."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._cost = FIRST_COST
        self._whole = float("inf")
        self._spent = 0.0

    def allow(self, seconds: float) -> None:
        """Let all copies between two decodes take this many seconds; inf where nobody waits for a token."""
        self._whole = seconds

    def begin_step(self) -> None:
        """A decode comes before the copies that are made from here on."""
        self._spent = 0.0

    def fits(self, n_bytes: int) -> bool:
        """Whether a copy of `n_bytes` may be made before the next decode."""
        return self._spent + n_bytes * self._cost <= self._whole

    def may_fit_later(self, n_bytes: int) -> bool:
        """Whether a copy that does not fit now may be made where nothing else is copied between two decodes."""
        self._cost *= HOPE
        return n_bytes * self._cost <= self._whole

    def run(self, n_bytes: int, work: Callable[[], T]) -> T:
        """Make a copy of `n_bytes` by `work`, and learn what it costs."""
        start = self._clock()
        done = work()
        seconds = self._clock() - start
        self._spent += seconds
        if n_bytes:
            self._cost += WEIGHT * (seconds / n_bytes - self._cost)
        return done
