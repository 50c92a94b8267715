"""How many threads compute while others want the processors that they run on."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

LEAST_WAIT = 0.002
"""Seconds of a decode for which a thread waited that tell something: less is any thread's that wakes up."""

LEAST_SHARE = 0.2
"""Of a decode's time that its thread waited."""

FEW, MOST = 16, 256
"""Decodes that go with a thread fewer before all are tried again: at first, and where that is always too early."""

SOON = 8
"""Decodes with all threads: where those are held up sooner, trying was too early."""

FEW_ROWS = 64
"""A batch of more is a prompt's beside which no text waits: it takes all threads, whatever they are worth."""

SCHEDSTAT = Path("/proc/thread-self/schedstat")


class Computing(Protocol):
    """What a Context is here."""

    @property
    def n_threads(self) -> int:
        """Threads of a decode."""

    def set_n_threads(self, n_threads: int, n_threads_batch: int) -> None:
        """For decodes of one row, and of several."""


class TeamSize:
    """The number of threads, learnt from how long one of them waited for a processor. Owned by that thread.

    Decoding threads wait for each other after each operation. Where the system lets two of them share a processor, or
    something else holds one up, a decode takes many times as long; and one thread fewer, which the others have room
    beside, takes hardly longer than all do.
    """

    def __init__(self, n_threads: int) -> None:
        self.now = self._all = n_threads
        self._n_left = 0  # decodes before all are tried again
        self._n_patience = FEW
        self._n_tried = SOON  # decodes with all threads since they were last tried

    def took(self, seconds: float, waited: float) -> int:
        """A decode with `now` threads took so long, of which one of them waited. Returns how many the next has."""
        if waited > LEAST_WAIT and waited > LEAST_SHARE * seconds:
            if self.now == self._all:
                self._n_patience = min(2 * self._n_patience, MOST) if self._n_tried < SOON else FEW
            self.now = max(1, self.now - 1)
            self._n_left = self._n_patience
        elif self.now == self._all:
            self._n_tried += 1
        else:
            self._n_left -= 1
            if self._n_left <= 0:
                self.now, self._n_tried = self._all, 0
        return self.now


class Team:
    """Sets the number of a context's threads for each decode. Used on the context's thread; a context manager.

    Only where every number of threads computes the same. Where the system does not tell how long a thread waited all
    threads compute everything.
    """

    def __init__(self, context: Computing, is_contended: Callable[[], bool], path: Path = SCHEDSTAT) -> None:
        """`is_contended`: whether something is at work beside decodes that takes processors for long; else all compute.

        What wants them for a moment after each step, as a client does that reads what came of it, holds threads up as
        well. Eight texts took 1.12 times as long where that was a reason for fewer.
        """
        self._context = context
        self._is_contended = is_contended
        self._n_all = context.n_threads
        self._size = TeamSize(self._n_all)
        self._began = (0.0, 0.0)
        self._is_small = False
        self._descriptor = -1
        with contextlib.suppress(OSError):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent: all threads compute from then on."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def begin(self, n_rows: int) -> None:
        """A decode of so many rows begins."""
        self._is_small = self._descriptor >= 0 and n_rows <= FEW_ROWS and self._is_contended()
        self._set(self._size.now if self._is_small else self._n_all)
        if self._is_small:
            self._began = self._times()

    def end(self) -> None:
        """Its results are there."""
        if self._is_small:
            began, waited = self._began
            now, waits = self._times()
            self._size.took(now - began, waits - waited)

    def _set(self, n_threads: int) -> None:
        if n_threads != self._context.n_threads:
            self._context.set_n_threads(n_threads, n_threads)

    def _times(self) -> tuple[float, float]:
        """The time, and how long this thread has waited for a processor since it began, in seconds."""
        return time.perf_counter(), int(os.pread(self._descriptor, 128, 0).split()[1]) / 1e9
