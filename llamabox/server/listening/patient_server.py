"""Hypercorn's connection, which tells when it is idle, and reads on where the client's bytes are no request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.events import Closed, Event, RawData, Updated

from llamabox.server.listening import unread

MOST_AT_ONCE = 1 << 18
"""Bytes of a body that are handled at a time: all that one read of the socket brings. Each time takes more than a tenth
of a millisecond, and a picture of some megabytes came in a hundred of Hypercorn's MAX_RECV.
"""


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
        self._has_request = False

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated):
            if self._has_ended:
                return
            self._has_request = not event.idle
            self._on_idle(event.idle)
        elif isinstance(event, Closed) and asyncio.current_task() is self._reading:  # else another reads
            with contextlib.suppress(OSError, RuntimeError, TimeoutError):  # it is going or gone
                async with asyncio.timeout(self._seconds):
                    await self._read_on()
        await super().protocol_send(event)

    async def _read_data(self) -> None:
        """Hypercorn would wait for its idle timeout after a client has gone, and the connection count as one."""
        while not self.reader.at_eof():
            try:
                data = await self.reader.read(MOST_AT_ONCE)
            except OSError:
                break
            # A head that is too long is found out while it comes, in pieces of MAX_RECV.
            size = MOST_AT_ONCE if self._has_request else MAX_RECV
            for start in range(0, max(len(data), 1), size):
                await self.protocol.handle(RawData(data[start : start + size]))
        await self.protocol.handle(Closed())
        self._has_ended = True
        await self.idle_task.stop()

    async def _read_on(self) -> None:
        if self.writer.can_write_eof():
            self.writer.write_eof()
        while self._limit > 0:
            async with asyncio.timeout(unread.SILENCE):
                data = await self.reader.read(MOST_AT_ONCE)
            if not data:
                return
            self._limit -= len(data)
