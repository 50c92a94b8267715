"""Frames over one end of a Unix socket pair. No message means anything here.

The worker's end is blocking (`BlockingChannel`): an engine loop is a thread. The server's is asyncio (`AsyncChannel`).
Either way a peer that is gone is an end of file, quietly, and a frame that makes no sense raises ChannelBroken.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import cast

from llamabox.errors import ServerFault
from llamabox.wire.protocol import PREFIX, Beat, Message, decode, encode, frame_length

logger = logging.getLogger(__name__)

READ_BUFFER = 256 << 10
"""Bytes asked of the kernel at once: many small frames cost one system call."""


class BlockingChannel:
    """A worker's end. One thread receives; any thread sends; neither waits for the other. Owns the socket.

    `send` hands the bytes to the kernel at once if it has room for them, which it nearly always has. A thread of our
    own takes what it has no room for, so that the engine loop never blocks on a slow server, and all of what is posted.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._reader = sock.makefile("rb", buffering=READ_BUFFER)
        self._changed = threading.Condition()
        self._unsent: deque[bytes | memoryview | Message] = deque()  # guarded by _changed, as are the two flags
        self.posting = 0.0  # seconds that it took to encode and send what was posted last
        self._closing = False
        self._gone = False  # nobody reads what we send
        self._writer = threading.Thread(target=self._write, name="channel writer", daemon=True)
        self._writer.start()

    @classmethod
    def from_fd(cls, fd: int) -> BlockingChannel:
        """Takes over an inherited descriptor, and keeps it from being inherited any further."""
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        return cls(sock)

    def receive(self) -> Message | None:
        """The next message, waited for; None once the peer or `close` has ended the stream. May raise ChannelBroken."""
        try:
            prefix = self._reader.read(PREFIX.size)
            if len(prefix) < PREFIX.size:
                return None
            n_header, n_payload = frame_length(prefix)
            header = self._reader.read(n_header)
            payload = self._reader.read(n_payload)
        except (OSError, ValueError):  # ValueError: closed by another thread
            return None
        if len(header) < n_header or len(payload) < n_payload:
            return None
        return decode(header, payload)

    def send(self, message: Message) -> None:
        """Never blocks; keeps the order of the calls. What nobody will read any more is dropped."""
        frame: bytes | memoryview = encode(message)
        with self._changed:
            if self._gone or self._closing:
                return
            if not self._unsent:
                frame = self._send_now(frame)
            if frame and not self._gone:
                self._unsent.append(frame)
                self._changed.notify_all()

    def post(self, message: Message) -> None:
        """The same, encoded and sent by the channel's own thread: beside the decode that the caller goes on to.

        Nobody may change the message any more.
        """
        with self._changed:
            if not self._gone and not self._closing:
                self._unsent.append(message)
                self._changed.notify_all()

    def beat(self) -> None:
        """A sign of life, unless the peer has something unread of us already."""
        with self._changed:
            has_unsent = bool(self._unsent)
        if not has_unsent:
            self.send(Beat())

    def close(self, timeout: float = 5.0) -> None:
        """Sends what is unsent, for at most `timeout` seconds, then ends both directions. Idempotent."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        self._writer.join(timeout)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a blocked read or write; closing alone would not
        self._writer.join()
        self._reader.close()
        self._socket.close()

    def __enter__(self) -> BlockingChannel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _send_now(self, frame: bytes | memoryview) -> bytes | memoryview:
        """What the kernel had no room for."""
        try:
            n_sent = self._socket.send(frame, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            n_sent = 0
        except OSError:
            self._gone = True
            return b""
        return memoryview(frame)[n_sent:]

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unsent or self._closing)
                if not self._unsent:
                    return
                first = self._unsent[0]  # stays in the queue while it is sent, so that no later one overtakes it
            start = time.perf_counter()
            try:
                self._socket.sendall(first if isinstance(first, bytes | memoryview) else encode(first))
            except OSError:
                self._break()
                return
            except ServerFault:
                logger.exception("a message cannot be sent: without it nothing behind it makes sense")
                self._break()
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
                return
            if not isinstance(first, bytes | memoryview):
                self.posting = time.perf_counter() - start
            with self._changed:
                self._unsent.popleft()

    def _break(self) -> None:
        with self._changed:
            self._gone = True
            self._unsent.clear()


class AsyncChannel(asyncio.Protocol):
    """The server's end. Belongs to one event loop. Owns the socket.

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
    async def open(cls, sock: socket.socket) -> AsyncChannel:
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
            frame = bytes(self._received[behind:start])
            self._handle(decode(frame[:n_header], frame[n_header:]))
        del self._received[:start]
