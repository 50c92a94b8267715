"""Frames between a trial and its process, over a socket pair: bytes with their length before them.

A question is `f64 processor seconds | u64 length | bytes`, an answer `u64 length | bytes`, little endian.
"""

from __future__ import annotations

import socket
import struct

Bytes = bytes | bytearray | memoryview

QUESTION = struct.Struct("<dQ")
ANSWER = struct.Struct("<Q")


def send(peer: socket.socket, *pieces: Bytes) -> None:
    """Send the pieces, one behind the other. Raises OSError, as sockets do.

    By one call where the kernel has room: one for each would wake the other side for a head without its bytes.
    """
    left = [memoryview(piece) for piece in pieces]
    while left:
        n_sent = peer.sendmsg(left)
        while left and n_sent >= len(left[0]):
            n_sent -= len(left.pop(0))
        if n_sent:
            left[0] = left[0][n_sent:]


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
