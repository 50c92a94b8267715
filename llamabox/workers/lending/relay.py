"""Moving bytes from one socket to another inside the kernel where it can do that, else by copying."""

from __future__ import annotations

import contextlib
import os
import socket

CHUNK = 1 << 20
"""Bytes of a call, and of the pipe between the two."""

_F_SETPIPE_SZ = 1031  # linux/fcntl.h


def move(source: socket.socket, target: socket.socket) -> None:
    """Move bytes until the source ends or the target takes no more. Then the target is told that no more comes.

    Both are blocking sockets. A connection that is reset counts as one that ended.
    """
    with contextlib.suppress(OSError):
        if hasattr(os, "splice"):
            _splice(source.fileno(), target.fileno())
        else:
            _copy(source, target)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _splice(source: int, target: int) -> None:
    end, start = os.pipe()
    try:
        _enlarge(start)
        while n_bytes := os.splice(source, start, CHUNK):
            while n_bytes:
                n_bytes -= os.splice(end, target, n_bytes)
    finally:
        os.close(end)
        os.close(start)


def _enlarge(pipe: int) -> None:
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, CHUNK)


def _copy(source: socket.socket, target: socket.socket) -> None:
    buffer = memoryview(bytearray(CHUNK))
    while n_bytes := source.recv_into(buffer):
        target.sendall(buffer[:n_bytes])
