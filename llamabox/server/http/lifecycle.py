"""Counts the requests that run, and says whether more may come."""

from __future__ import annotations

import asyncio


class Lifecycle:
    """Counts requests in flight; once stopping, tells when the last has ended. Belongs to the event loop."""

    def __init__(self) -> None:
        self.stopping = False
        self._n_active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def n_active(self) -> int:
        return self._n_active

    def __enter__(self) -> None:
        self._n_active += 1
        self._idle.clear()

    def __exit__(self, *exc_info: object) -> None:
        self._n_active -= 1
        if self._n_active == 0:
            self._idle.set()

    def stop(self) -> None:
        """Admit no request from now on."""
        self.stopping = True

    async def drained(self) -> None:
        """Waits until nothing is in flight."""
        await self._idle.wait()
