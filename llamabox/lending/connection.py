"""A client's connection. The listener keeps it alive, notices its end, counts its bytes, and never reads it."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct

KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Seconds until the first probe and between probes, and how many: a machine that vanished is noticed in a minute."""

USER_TIMEOUT_MS = 60_000
"""Milliseconds after which a client is taken for gone that vanished while it was sent something."""

_TCP_INFO_BYTES = (120, 128)
"""Offsets of tcpi_bytes_acked and tcpi_bytes_received in struct tcp_info of linux/tcp.h."""


def prepare(sock: socket.socket) -> None:
    """Set a connection up for small messages that are wanted at once, from machines that may vanish."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {**KEEPALIVE, "TCP_USER_TIMEOUT": USER_TIMEOUT_MS}.items():
        if hasattr(socket, name):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def traffic(sock: socket.socket) -> tuple[int, int] | None:
    """Bytes sent to the client and received from it, as the kernel counts them; None where it does not tell."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    except (AttributeError, OSError):
        return None
    if len(info) < _TCP_INFO_BYTES[1] + 8:
        return None
    sent, received = (struct.unpack_from("=Q", info, at)[0] for at in _TCP_INFO_BYTES)
    return sent, received


class Hangups:
    """Tells that clients closed their connections, which others read. Belongs to the running event loop.

    Only Linux has a way to wait for that alone. Elsewhere the events are never set, and a client's process has to
    notice by itself.
    """

    def __init__(self) -> None:
        self._events: dict[int, asyncio.Event] = {}
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        if self._epoll is not None:
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._on_events)

    def watch(self, sock: socket.socket) -> asyncio.Event:
        """Until `forget`, which has to come before the socket is closed."""
        event = self._events[sock.fileno()] = asyncio.Event()
        if self._epoll is not None:
            self._epoll.register(sock.fileno(), select.EPOLLRDHUP)
        return event

    def forget(self, sock: socket.socket) -> None:
        if self._events.pop(sock.fileno(), None) is not None and self._epoll is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(sock.fileno())

    def close(self) -> None:
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _on_events(self) -> None:
        assert self._epoll is not None
        for fd, _ in self._epoll.poll(0):
            self._epoll.unregister(fd)  # once is enough
            self._events[fd].set()
