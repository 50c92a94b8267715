"""A worker's signs of life, given only while its threads get on with their work.

A process that is stopped gives none by nature. Here it also falls silent when a call into native code does not return:
each piece of work is announced, and one that goes on for too long without a sign of progress ends the signs. The server
takes silence for death (vigil).
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from llamabox.wire.signs.steady import SteadyClock
from llamabox.wire.worker_end import WorkerEnd

logger = logging.getLogger(__name__)

BEATS = 8
"""Signs of life within the limit."""

LONGEST_PAUSE = 1.0
"""Seconds between two of them at most."""

DEVICE_FACTOR = 10
"""A step on a GPU or an RPC server may take so many times the limit: how far it is cannot be seen from outside."""

SLOW_FACTOR = 4
"""Computing may stand still for so many times the longest time for which it did and then went on. One node of a graph
is the attention to all that came before: at the end of a long prompt it takes seconds, on a slow machine many.
"""

NO_SIGN = 0


def pause(limit: float) -> float:
    """Seconds between two signs of life, for a limit in seconds."""
    return min(limit / BEATS, LONGEST_PAUSE)


class OpenWork:
    """A piece of work that a thread is at, from entry to exit."""

    __slots__ = ("_pulse", "computes", "seconds", "since", "thread_id", "what")

    def __init__(self, pulse: Pulse, what: str, seconds: float, computes: bool) -> None:
        self._pulse = pulse
        self.what = what
        self.seconds = seconds
        self.computes = computes
        self.since = 0.0
        self.thread_id = 0

    def __enter__(self) -> None:
        self.since = self._pulse.now
        self.thread_id = threading.get_ident()
        self._pulse.at_work.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pulse.at_work.discard(self)
        if self.computes:
            self._pulse.went_on(self)


class Pulse:
    """Sends a Beat now and then from a thread of its own, from `start` on. `work` may be called from any thread."""

    def __init__(self, channel: WorkerEnd, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`limit` is in seconds, the server's for silence; 0: nobody listens."""
        self.at_work: set[OpenWork] = set()
        self._channel = channel
        self._limit = limit
        self._steady = SteadyClock(pause(limit), clock)
        self._signs: Callable[[], int] = lambda: NO_SIGN
        self._factor = 0.5
        self._seen = NO_SIGN
        self._moved = 0.0  # when the signs of progress were last seen to change
        self._longest = 0.0  # for which computing stood still, and then went on
        self._told: OpenWork | None = None  # the log says that it is stuck

    @property
    def now(self) -> float:
        """On the steady clock."""
        return self._steady.now

    def start(self) -> None:
        if self._limit:
            threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def watch(self, signs: Callable[[], int], *, has_device: bool) -> None:
        """`signs` is a number that changes while something is computed, as far as the CPU does it.

        `has_device`: something else may compute, unseen.
        """
        self._signs = signs
        self._factor = DEVICE_FACTOR if has_device else self._factor

    def work(self, what: str, *, seconds: float = 0.0, computes: bool = False) -> OpenWork:
        """To be entered around a piece of work that should end, and `seconds` later than usual at most.

        `computes`: it gets on as long as the signs change.
        """
        return OpenWork(self, what, seconds, computes)

    def stuck(self) -> OpenWork | None:
        """A piece of work that does not get on. To be asked at the interval."""
        now, signs, at_work = self._steady.look(), self._signs(), list(self.at_work)
        if signs != self._seen:
            for work in at_work:
                if work.computes:
                    self.went_on(work)
            self._seen, self._moved = signs, now
        for work in at_work:
            last, patience = work.since, self._limit / 2
            if work.computes:
                last = max(last, self._moved)
                patience = max(self._limit * self._factor, SLOW_FACTOR * self._longest)
            if now - last > patience + work.seconds:
                return work
        return None

    def went_on(self, work: OpenWork) -> None:
        """Some computing went on, or ended."""
        self._longest = max(self._longest, self.now - max(work.since, self._moved))

    def _run(self) -> None:
        pausing = threading.Event()
        while not pausing.wait(pause(self._limit)):
            stuck = self.stuck()
            if stuck is None:
                self._channel.beat()
            elif stuck is not self._told:
                logger.error("%s does not get on: %s", stuck.what, _place(stuck.thread_id))
            self._told = stuck


def _place(thread_id: int) -> str:
    """Where the thread is, innermost first."""
    frame, places = sys._current_frames().get(thread_id), []
    while frame is not None:
        places.append(f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})")
        frame = frame.f_back
    return " < ".join(places[:8]) or "its thread has ended"
