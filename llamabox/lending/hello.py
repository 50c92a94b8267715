"""The HELLO of a client, looked at without taking it: a client that sends none is not worth a process.

A message of ggml's RPC protocol 7 is a byte for the command, eight for the length of the body, and the body.
"""

from __future__ import annotations

import asyncio
import socket

HELLO = 14
"""RPC_CMD_HELLO."""

CAPS_SIZE = 24
"""Bytes of a HELLO of this version, RPC_CONN_CAPS_SIZE."""

HEAD_SIZE = 9
"""Bytes of a message before its body."""

SECONDS = 10.0
"""Seconds in which a HELLO has to arrive. Clients send it at once."""


async def why_not(sock: socket.socket) -> str | None:
    """Wait for a HELLO, which stays unread. Returns None, or a sentence why there is none. `sock` must not block."""
    try:
        async with asyncio.timeout(SECONDS):
            head = await _peek(sock, HEAD_SIZE)
            if reason := _wrong(head):
                return reason
            if len(await _peek(sock, HEAD_SIZE + CAPS_SIZE)) < HEAD_SIZE + CAPS_SIZE:
                return "it left in the middle of its HELLO"
    except TimeoutError:
        return f"it sent no whole HELLO in {SECONDS:g} s"
    except OSError as error:
        return f"the connection broke before its HELLO: {error.strerror}"
    return None


def _wrong(head: bytes) -> str | None:
    if not head:
        return "it left without a word"
    if head[0] != HELLO:
        return "its first message is no HELLO: not a client of ggml's RPC protocol, or one of an old version"
    if len(head) < HEAD_SIZE:
        return "it left in the middle of its HELLO"
    size = int.from_bytes(head[1:], "little")
    if size != CAPS_SIZE:
        return (
            f"its HELLO is {size} bytes long where this version's is {CAPS_SIZE}: it was built from another llama.cpp"
        )
    return None


async def _peek(sock: socket.socket, n_bytes: int) -> bytes:
    """The next `n_bytes`, unread, or fewer where no more will come. Raises OSError where the connection broke."""
    # The kernel wakes nobody for less, so that half a message does not keep the loop busy.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, n_bytes)
    try:
        await _readable(sock)
        return sock.recv(n_bytes, socket.MSG_PEEK)
    finally:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sock)
