"""The events of a stream, kept for those who come later."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator

END = b"\n\n"


class EventLog:
    """Events in the order of their numbers. Belongs to the event loop."""

    def __init__(self) -> None:
        self._events: list[bytes] = []
        self._packed = b""  # once it is over: events repeat each other, and take a tenth of the room
        self._more = asyncio.Event()
        self.is_over = False

    @property
    def n_bytes(self) -> int:
        """Bytes that it holds once it is over."""
        return len(self._packed)

    def add(self, chunk: bytes) -> None:
        """More events, whole ones."""
        self._events += chunk.split(END)[:-1]
        self._wake()

    def end(self) -> None:
        """There are no further events."""
        self._packed = zlib.compress(END.join(self._events), 1)
        self._events = []
        self.is_over = True
        self._wake()

    async def follow(self, after: int) -> AsyncGenerator[bytes, None]:
        """The events whose number is above `after`, as they come, until the last one."""
        n_seen = after + 1
        while True:
            more, is_over = self._more, self.is_over
            events = self._all()[n_seen:]
            n_seen += len(events)
            if events:
                yield END.join(events) + END
            if is_over:
                return
            await more.wait()

    def _all(self) -> list[bytes]:
        if self.is_over:
            return zlib.decompress(self._packed).split(END)
        return self._events

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()
