"""Hypercorn's connection, which tells when it is idle, and reads on where the client's bytes are no request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.events import Closed, Event, Updated

from llamabox.server.listening import unread


class PatientServer(TCPServer):
    """One connection, served by awaiting it.

    `on_idle` hears whether it has a request. Bytes that are none, as a head that is too long or a bad chunk, are
    answered before the app sees them; what follows is read for up to `seconds` and `limit` bytes, as unread.py does for
    the app's replies.
    """

    def __init__(self, *args: object, on_idle: Callable[[bool], None], limit: int, seconds: float) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._on_idle = on_idle
        self._limit = limit
        self._seconds = seconds
        self._reading = asyncio.current_task()
        self._has_ended = False

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated):
            if self._has_ended:
                return
            self._on_idle(event.idle)
        elif isinstance(event, Closed) and asyncio.current_task() is self._reading:  # else another reads
            with contextlib.suppress(OSError, RuntimeError, TimeoutError):  # it is going or gone
                async with asyncio.timeout(self._seconds):
                    await self._read_on()
        await super().protocol_send(event)

    async def _read_data(self) -> None:
        """Hypercorn would wait for its idle timeout after a client has gone, and the connection count as one."""
        await super()._read_data()
        self._has_ended = True
        await self.idle_task.stop()

    async def _read_on(self) -> None:
        if self.writer.can_write_eof():
            self.writer.write_eof()
        while self._limit > 0:
            async with asyncio.timeout(unread.SILENCE):
                data = await self.reader.read(MAX_RECV)
            if not data:
                return
            self._limit -= len(data)
