"""ggml's RPC server in a thread, and the one connection to it.

It only knows how to listen on an IPv4 address, accepts one client at a time and cannot be told to stop. So it listens
on a loopback port that the system chooses, for one connection that comes from this very process; then the port is shut.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from llamabox.errors import NativeError

T = TypeVar("T")

HOST = "127.0.0.1"
POLL_SECONDS = 0.001
"""ggml tells nobody that it listens: its sockets are looked for among this process' descriptors."""


class Loopback:
    """`connection` leads to `server`, which gets the endpoint and runs in a daemon thread. Raises NativeError."""

    def __init__(self, server: Callable[[str], None]) -> None:
        self._before = set(_descriptors())
        self._thread = threading.Thread(target=server, args=(f"{HOST}:0",), name="rpc server", daemon=True)
        self._thread.start()
        listening, port = self._await(_port_of)
        self.connection = socket.create_connection((HOST, port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._before.add(self.connection.fileno())
        ours = self.connection.getsockname()
        _, peer = self._await(lambda sock: _peer_at(sock, port))
        if peer != ours:
            raise NativeError(f"{peer[0]}:{peer[1]} took the loopback connection to ggml's RPC server")
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, listening)  # ggml keeps the number and cannot accept with it
        os.close(null)

    def _await(self, look: Callable[[socket.socket], T | None]) -> tuple[int, T]:
        """Wait for a new descriptor in which `look` finds something. Returns both."""
        while True:
            is_over = not self._thread.is_alive()
            for fd in _descriptors():
                if fd not in self._before and (found := _look(fd, look)) is not None:
                    return fd, found
            if is_over:
                raise NativeError("ggml's RPC server ended before it listened")
            time.sleep(POLL_SECONDS)


def _descriptors() -> list[int]:
    """The open file descriptors of this process."""
    return [fd for fd in map(int, os.listdir("/dev/fd")) if _is_open(fd)]


def _is_open(fd: int) -> bool:
    """False for the descriptor that the list itself was read from. The next socket gets its number."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _look(fd: int, look: Callable[[socket.socket], T | None]) -> T | None:
    try:
        sock = socket.socket(fileno=fd)
    except OSError:  # no socket, or gone
        return None
    try:
        return look(sock) if sock.family == socket.AF_INET else None
    except OSError:
        return None
    finally:
        sock.detach()


def _port_of(sock: socket.socket) -> int | None:
    """The port that a socket listens on, or None."""
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return None
    port: int = sock.getsockname()[1]
    return port


def _peer_at(sock: socket.socket, port: int) -> tuple[str, int] | None:
    """The peer of a socket that is connected at this port here, or None."""
    if sock.getsockname()[1] != port:
        return None
    peer: tuple[str, int] = sock.getpeername()
    return peer
