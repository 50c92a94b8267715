"""Memory that states are copied into while streams wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

LARGE = 4 << 20
"""Bytes of a state for which memory is made ready beforehand: with less no pause is long."""

SLACK = 8
"""Memory is made ready for a state that is larger by this part of it, as the slot may grow."""

WASTE = 4
"""Memory that is so many times as large as a state is not taken for it."""

PATIENCE = 3.0
"""Seconds after which memory that is still being made ready is not waited for: a slow disk may hold up that thread."""


class Coming(Protocol):
    """Memory that another thread makes ready."""

    def done(self) -> bool:
        """Whether it is."""

    def result(self) -> memoryview:
        """It, once it is."""


class ReadyMemory:
    """Memory for the next state that is copied out of a slot, written to by another thread.

    Streams wait while a state is copied, and into memory that is written for the first time that takes several times as
    long. Owned by the engine's thread. There is none until it is `made_by` somebody.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._make: Callable[[int], Coming] | None = None
        self._coming: Coming | None = None
        self._since = 0.0
        self.n_held = 0  # bytes that are there or on their way

    def made_by(self, make: Callable[[int], Coming]) -> None:
        """Let `make` begin to make ready so many bytes."""
        self._make = make

    def want(self, n_bytes: int) -> None:
        """Have memory made ready for a state of `n_bytes`, unless some that fits is there, or any on its way."""
        if self._make is None or n_bytes < LARGE or self.has(n_bytes):
            return
        if self._coming is None or self._coming.done():
            self.n_held = with_slack(n_bytes)
            self._coming, self._since = self._make(self.n_held), self._clock()

    def has(self, n_bytes: int) -> bool:
        """Whether there is some that fits a state of `n_bytes`."""
        if self._coming is None or not self._coming.done():
            return False
        return n_bytes <= len(self._coming.result()) < WASTE * n_bytes

    @property
    def is_coming(self) -> bool:
        """Whether some is made ready, and will be soon."""
        return self._coming is not None and not self._coming.done() and self._clock() - self._since < PATIENCE

    def take(self, n_bytes: int) -> memoryview | None:
        """What there is for a state of `n_bytes`, the caller's from now on."""
        if self._coming is None or not self.has(n_bytes):
            return None
        memory, self._coming, self.n_held = self._coming.result(), None, 0
        return memory


def with_slack(n_bytes: int) -> int:
    """Bytes of the memory that is made ready for a state of `n_bytes`."""
    return n_bytes + n_bytes // SLACK
