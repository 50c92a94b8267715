"""How long states may be copied between two steps, while streams wait for their next token."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import TypeVar

T = TypeVar("T")

FIRST_COST = 1e-9
"""Seconds a byte until a copy has been measured."""

FRESH_COST = 2e-9
"""The least that is reckoned with for copies into memory that is written for the first time.

75 MiB took 175 to 215 ms where written memory took 9; but 14 MiB took 6, as little may come from memory of before.
"""

STREAM_COST = 0.4e-9
"""Seconds a byte of a copy between streams, which a decode makes with its own work.

188 MB took 60 to 130 ms; by itself 16 where the target was written before, 155 where it was not.
"""

DEAR = 0.01
"""Seconds that a copy of a stream takes which is better made in two pauses."""

LONG = 0.25
"""Part of the time that copies may take from which on they take long."""

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
        self._cost = {False: FIRST_COST, True: FRESH_COST}  # by whether the memory is fresh
        self._whole = inf
        self._pace = inf
        self._spent = 0.0
        self._before = 0.0  # spent before the decode that is planned
        self._n_stream = 0  # bytes of a stream, once one was copied
        self._stood_back = False
        self.has_put_off = False  # the next decode copies from stream to stream

    def allow(self, seconds: float, pace: float = inf) -> None:
        """Let all copies between two decodes take this many seconds; inf where nobody waits for a token.

        One may take all of it; others come with it only as far as all together take no more than `pace` seconds.
        """
        self._whole = seconds
        self._pace = min(pace, seconds)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a token."""
        return self._whole < inf

    @staticmethod
    def is_dear(n_bytes: int) -> bool:
        """Whether a decode that copies a stream of `n_bytes` takes noticeably longer for it."""
        return n_bytes * STREAM_COST > DEAR

    @property
    def is_long(self) -> bool:
        """Whether so much is spent before the decode that is planned that streams should get their tokens by it."""
        return self._before > LONG * self._whole

    @property
    def is_noticed(self) -> bool:
        """Whether more than a little is spent of what the decode that is planned may take longer beside prompts."""
        return self._before > LONG * self._pace

    @property
    def before(self) -> float:
        """Seconds that copies take which the decode that is planned has to wait for."""
        return self._before

    @property
    def is_spent(self) -> bool:
        """Whether copies took so long since the last decode that those who would bring more wait for the next one."""
        return self._spent > self._pace

    def keeps_pace(self, n_bytes: int) -> bool:
        """Whether a copy of `n_bytes` is the first between two decodes, or as short as those together should be."""
        return self._spent == 0.0 or self._spent + n_bytes * self._cost[False] <= self._pace

    @property
    def may_put_off(self) -> bool:
        """Whether the next decode may copy one more stream: as many as fit, or one that never will."""
        return self._spent == 0.0 or self._spent + self._n_stream * STREAM_COST <= self._whole

    def put_off(self, n_bytes: int) -> None:
        """The next decode copies a stream of `n_bytes`, as all streams have."""
        self._n_stream = n_bytes
        self._spent += n_bytes * STREAM_COST
        self.has_put_off = True

    def begin_step(self) -> None:
        """A decode comes before the copies that are made from here on."""
        self._before, self._spent = self._spent, 0.0

    def computed(self, *, is_awaited: bool) -> None:
        """That decode is done. `is_awaited`: streams stood back for it, and wait on."""
        self._stood_back = is_awaited
        self.has_put_off = False

    @property
    def is_overdue(self) -> bool:
        """Whether streams stood back for the last decode: they get a token before anything is copied."""
        return self._stood_back and self._whole < inf

    def fits(self, n_bytes: int, *, is_fresh: bool = False, n_more: int = 0) -> bool:
        """Whether a copy of `n_bytes` may be made before the next decode, with `n_more` bytes that will be copied too.

        `is_fresh`: into memory that is written for the first time.
        """
        more = n_more * self._cost[False]
        return self._spent + more + n_bytes * self._cost[is_fresh] <= self._whole

    def may_fit_later(self, n_bytes: int, *, is_fresh: bool = False) -> bool:
        """Whether a copy that does not fit now may be made where nothing else is copied between two decodes."""
        self._cost[is_fresh] = max(self._cost[is_fresh] * HOPE, FRESH_COST if is_fresh else 0.0)
        return self.may_fit(n_bytes, is_fresh=is_fresh)

    def may_fit(self, n_bytes: int, *, is_fresh: bool = False) -> bool:
        """Whether a copy may be made where nothing else is copied between two decodes."""
        return n_bytes * self._cost[is_fresh] <= self._whole

    def run(self, n_bytes: int, work: Callable[[], T], *, is_fresh: bool = False) -> T:
        """Make a copy of `n_bytes` by `work`, and learn what it costs."""
        start = self._clock()
        done = work()
        seconds = self._clock() - start
        self._spent += seconds
        if n_bytes:
            cost = self._cost[is_fresh] + WEIGHT * (seconds / n_bytes - self._cost[is_fresh])
            self._cost[is_fresh] = max(cost, FRESH_COST) if is_fresh else cost
        return done
