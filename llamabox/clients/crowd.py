"""The limit on requests that wait for a worker, and the seconds after which a client should try again."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from llamabox.errors import QueueFull

MAX_WAITING = 2048
"""Texts that may wait. Each holds its prompt in two processes, and the last waits for minutes on any machine."""

MAX_RETRY_AFTER = 60

N_MEASURED = 16
"""Departures from which the speed is estimated."""


class Crowd:
    """Bounds the number of waiting requests. Belongs to the event loop."""

    def __init__(self, max_waiting: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_waiting = max_waiting
        self._clock = clock
        self._departures: deque[float] = deque(maxlen=N_MEASURED)

    def left(self) -> None:
        """Note that a request has ended: the speed is measured by it."""
        self._departures.append(self._clock())

    def check(self, n_waiting: int) -> None:
        """Raises QueueFull where no more may wait; it says in how many seconds fewer are likely to."""
        if n_waiting < self._max_waiting:
            return
        raise QueueFull(
            f"{n_waiting} texts wait for a slot already, at most {self._max_waiting} may (--max-waiting): try again",
            retry_after=self._retry_after(n_waiting - self._max_waiting + 1),
        )

    def _retry_after(self, n_over: int) -> int:
        """Seconds until `n_over` requests have ended, at the speed of the last departures."""
        if not self._departures:
            return 1
        each = (self._clock() - self._departures[0]) / len(self._departures)
        return min(max(math.ceil(n_over * each), 1), MAX_RETRY_AFTER)
