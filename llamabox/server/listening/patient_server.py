"""Hypercorn's connection, which tells when it is idle, and reads on where the client's bytes are no request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import h11
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import HTTPStream

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

    def write_piece(self, piece: bytes) -> bool:
        """Write more of the body that is under way. False: it was not written, and has to be sent as ASGI wants it.

        A token that goes through ASGI, Hypercorn and h11 costs fifteen coroutines and more time than all that was done
        to make it. The way around them is for bodies of unknown length to clients of HTTP/1.1, as chunks (RFC 9112,
        7.1), and only while the client takes everything at once: on the other way the sender waits for it.
        """
        assert piece, "an empty chunk ends the body"
        protocol, transport = self.protocol.protocol, self.writer.transport
        if (
            not isinstance(protocol, H11Protocol)
            or protocol.connection.our_state is not h11.SEND_BODY
            or protocol.connection.their_http_version != b"1.1"
            or not isinstance(protocol.stream, HTTPStream)
            or protocol.stream.scope["method"] == "HEAD"
            or transport.get_write_buffer_size()
            or transport.is_closing()
            or self.send_lock.locked()
        ):
            return False
        try:
            transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        except (OSError, RuntimeError):  # the connection has just ended: the other way tells so
            return False
        return True

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
