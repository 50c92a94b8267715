"""Frames between a trial and its process, over a socket pair: bytes with their length before them.

A question is `f64 processor seconds | u64 length | bytes`, an answer `u64 length | bytes`, little endian.
"""

from __future__ import annotations

import socket
import struct

QUESTION = struct.Struct("<dQ")
ANSWER = struct.Struct("<Q")


def receive(peer: socket.socket, n: int) -> bytearray | None:
    """The next n bytes; None when the other side is gone. Raises OSError, as sockets do."""
    data = bytearray(n)
    view = memoryview(data)
    while view:
        n_read = peer.recv_into(view)
        if n_read == 0:
            return None
        view = view[n_read:]
    return data
