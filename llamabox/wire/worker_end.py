"""A worker's end of the socket pair: blocking, because an engine loop is a thread.

A peer that is gone is an end of file, quietly; a frame that makes no sense raises ChannelBroken.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections import deque
from types import TracebackType

from llamabox.errors import ServerFault
from llamabox.wire.common import Beat
from llamabox.wire.frames import PREFIX, Message, decode, encode, frame_length

logger = logging.getLogger(__name__)

READ_BUFFER = 256 << 10
"""Bytes asked of the kernel at once: many small frames cost one system call."""


class WorkerEnd:
    """One thread receives; any thread sends; neither waits for the other. Owns the socket.

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
    def from_fd(cls, fd: int) -> WorkerEnd:
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
        """Send, but encode and write on the channel's own thread: beside the decode that the caller goes on to.

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

    def __enter__(self) -> WorkerEnd:
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
