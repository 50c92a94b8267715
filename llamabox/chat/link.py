"""How template.py and the child of sandbox.py talk: `u32 length | JSON`, little endian, over a socket pair."""

from __future__ import annotations

import socket
import struct

LENGTH = struct.Struct("<I")

CPU_SECONDS = 2.0
"""Processor time that the child has for one call. Wall time would punish a template for the load of its neighbours."""


def receive(peer: socket.socket) -> bytes | None:
    """One frame's JSON; None when the other side is gone."""
    head = _exactly(peer, LENGTH.size)
    return None if head is None else _exactly(peer, LENGTH.unpack(head)[0])


def _exactly(peer: socket.socket, n: int) -> bytes | None:
    buffer = bytearray(n)
    view = memoryview(buffer)
    while view:
        n_read = peer.recv_into(view)
        if n_read == 0:
            return None
        view = view[n_read:]
    return bytes(buffer)
