"""Whether a worker that says nothing still lives: the server's half of `pulse`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from llamabox.wire.signs.pulse import pause
from llamabox.wire.signs.steady import SteadyClock

START_FACTOR = 5
"""A process that has yet to load its Python code, perhaps from a slow disk, may take so many limits to its first word.
"""

SLOW_FACTOR = 3
"""The limit is never less than so many times the longest silence that ended by itself: the machine is that slow."""


class Vigil:
    """Measures the silence of one process. Belongs to the event loop. `limit` is in seconds and above 0."""

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause = pause(limit)
        self._steady = SteadyClock(self._pause, clock)
        self._least = limit
        self._longest: float | None = None  # of the silences that ended
        self._since = 0.0

    @property
    def limit(self) -> float:
        """Of the silence there is."""
        if self._longest is None:
            return START_FACTOR * self._least
        return max(self._least, SLOW_FACTOR * self._longest)

    def heard(self) -> None:
        """The process said something."""
        now = self._steady.now
        self._longest = 0.0 if self._longest is None else max(self._longest, now - self._since)
        self._since = now

    def is_over(self) -> bool:
        """Whether the silence is longer than the limit. To be asked at the interval."""
        return self._steady.look() - self._since > self.limit

    async def wait(self, is_excused: Callable[[], bool] = lambda: False) -> None:
        """Returns when the silence has been too long, and nothing excuses it."""
        while not self.is_over() or is_excused():
            await asyncio.sleep(self._pause)


def is_traced(pid: int | None) -> bool:
    """Whether a debugger holds the process, as far as /proc tells."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
        return any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in status.splitlines())
    return False
