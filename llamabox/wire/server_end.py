"""The server's end of a worker's socket pair: asyncio.

A peer that is gone is an end of file, quietly; a frame that makes no sense raises ChannelBroken.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from llamabox.wire.frames import PREFIX, Message, decode, encode, frame_length


class ServerEnd(asyncio.Protocol):
    """Belongs to one event loop. Owns the socket.

    Messages are handled where their bytes arrive: a stream and a task that reads it would cost a third of what the
    server process spends on a token.
    """

    def __init__(self) -> None:
        self._received = bytearray()  # the beginning of a frame
        self._handle: Callable[[Message], None] | None = None  # until somebody serves, what comes is kept
        self._is_broken = False
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport

    @classmethod
    async def open(cls, sock: socket.socket) -> ServerEnd:
        """Takes over the socket, also when it fails."""
        try:
            _, channel = await asyncio.get_running_loop().create_unix_connection(cls, sock=sock)
        except BaseException:
            sock.close()
            raise
        return channel

    async def serve(self, handle: Callable[[Message], None]) -> None:
        """Calls `handle` with each message, until the peer or `close` ends the stream. Once in a channel's life.

        Raises ChannelBroken, and what `handle` raises; then the rest of the stream is not read.
        """
        self._handle = handle
        self._take_frames()
        await self._ended

    def send(self, message: Message) -> None:
        """Queues a frame. Never waits: `n_unsent` tells how much the peer has yet to take."""
        frame = encode(message)
        if not self._transport.is_closing():
            self._transport.write(frame)

    @property
    def n_unsent(self) -> int:
        """Bytes queued here for the peer."""
        return self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Ends both directions at once; what is unsent is dropped. Idempotent."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            return
        self._received += data
        try:
            self._take_frames()
        except Exception as exc:
            self._is_broken = True
            if not self._ended.done():
                self._ended.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _take_frames(self) -> None:
        start = 0
        while self._handle is not None and len(self._received) - start >= PREFIX.size:
            behind = start + PREFIX.size
            n_header, n_payload = frame_length(bytes(self._received[start:behind]))
            if len(self._received) - behind < n_header + n_payload:
                break
            start = behind + n_header + n_payload
            middle = behind + n_header
            with memoryview(self._received) as received:  # of a long frame each copy would hold up the event loop
                header, payload = bytes(received[behind:middle]), bytes(received[middle:start])
            self._handle(decode(header, payload))
        del self._received[:start]
