"""How template.py and the child of sandbox.py talk: `u32 length | JSON`, little endian, over a socket pair."""

from __future__ import annotations

import socket
import struct

LENGTH = struct.Struct("<I")

CPU_SECONDS = 2.0
"""Processor time that the child has for one call. Wall time would punish a template for the load of its neighbours."""


CALL_MESSAGES = 200
"""Messages that this time is for."""

MAX_SECONDS = 60.0
"""Processor time for the longest conversation."""


def seconds_for(n_messages: int, cpu_seconds: float) -> float:
    """Processor time for a conversation: a template that is quick enough for a few is so for many."""
    return min(MAX_SECONDS, cpu_seconds * max(1.0, n_messages / CALL_MESSAGES))


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
