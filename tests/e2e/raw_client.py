"""A client that is as rude as a socket allows: half requests, unread replies, connections ended by FIN or by RST."""

from __future__ import annotations

import json
import socket
import struct
from types import TracebackType
from typing import Any

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: close() sends RST."""


class RawClient:
    """One connection. Ends with the `with` block, or earlier by `leave`."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        """`receive_buffer` in bytes bounds what the kernel takes from the server while nobody reads."""
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(60)
        self.sock.connect(("127.0.0.1", port))
        self._read = b""

    def post(self, path: str, body: dict[str, Any], *, n_sent: int | None = None) -> None:
        """Sends a request; with `n_sent` only so many bytes of its body, though all of them are announced."""
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        self.sock.sendall(head.encode() + (content if n_sent is None else content[:n_sent]))

    def read_until(self, mark: bytes) -> bytes:
        """All that came up to and with `mark`."""
        while mark not in self._read:
            piece = self.sock.recv(65536)
            assert piece, f"the server closed the connection; it had sent {self._read!r}"
            self._read += piece
        end = self._read.index(mark) + len(mark)
        found, self._read = self._read[:end], self._read[end:]
        return found

    def rest(self) -> bytes:
        """All that comes until the server ends the connection, by whatever means."""
        while True:
            try:
                piece = self.sock.recv(65536)
            except ConnectionResetError:
                piece = b""
            if not piece:
                found, self._read = self._read, b""
                return found
            self._read += piece

    def leave(self, *, reset: bool) -> None:
        """Ends the connection, by RST or by FIN."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.sock.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self.sock.close()
