"""Watching the TCP connections to RPC servers from inside the worker that has them.

ggml's client waits in recv() without a limit: where the machine at the other end vanishes without a word, a decode
hangs for ever, and an idle worker learns of a server's death only from the next request. ggml hands out no socket, but
a text worker has no other TCP connections than those, so they are found among its descriptors. The kernel is made to
ask the other side for a sign of life every second; what it heard last is in TCP_INFO.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence

logger = logging.getLogger(__name__)

INTERVAL = 0.5
"""Seconds between two looks."""

SILENCE = 5.0
"""Seconds without an acknowledgement or data after which the other side is taken for dead."""

KEEPALIVE = ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 127))
"""A probe a second, and the kernel never gives up by itself: a connection that it dropped could not tell the server of
our end later, and ggml's own server would go on waiting for us instead of serving the next."""

ESTABLISHED, CLOSE, CLOSE_WAIT = 1, 7, 8
"""TCP states of the kernel. CLOSE: the other side reset the connection; CLOSE_WAIT: the other side closed it."""

TCP_INFO = struct.Struct("=B51xII")
"""tcpi_state; tcpi_last_data_recv and tcpi_last_ack_recv, milliseconds ago (linux/tcp.h)."""

EXIT_LOST = 3


class Links:
    """Looks at the connections from a thread of its own, from `start()` to `close()`.

    `lost(sentence)` is called in that thread, once, when one of them is dead; there are no looks after that.
    """

    def __init__(self, names: Mapping[tuple[str, int], str], lost: Callable[[str], None]) -> None:
        """`names` are the endpoints as the user wrote them, by (IPv4 address, port)."""
        self._names = names
        self._lost = lost
        self._closed = threading.Event()
        self._known: dict[str, str] = {}  # by the kernel's name of a socket, which it gives once: the other side
        self._thread = threading.Thread(target=self._run, name="rpc-links", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Idempotent; waits for the last look."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(INTERVAL):
            trouble = self.look()
            if trouble:
                self._lost(trouble)
                return

    def look(self) -> str:
        """A sentence on a connection that is dead, or an empty text."""
        seen: dict[str, str] = {}
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile, no TCP socket, or not connected yet
                kernel_name = os.readlink(f"/proc/self/fd/{name}")
                if not kernel_name.startswith("socket:"):
                    continue
                with socket.socket(fileno=os.dup(int(name))) as link:
                    if link.family != socket.AF_INET or link.type != socket.SOCK_STREAM:
                        continue
                    server = self._known.get(kernel_name) or self._begin(link)
                    seen[kernel_name] = server
                    trouble = _trouble(link)
                if trouble:
                    return f"the RPC server {server} {trouble}"
        self._known = seen
        return ""

    def _begin(self, link: socket.socket) -> str:
        """Have the kernel ask for signs of life. The other side's name; OSError for what is no connection."""
        host, port = link.getpeername()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            link.setsockopt(socket.IPPROTO_TCP, option, value)
        return self._names.get((host, port), f"{host}:{port}")


def _trouble(link: socket.socket) -> str:
    state, data_ms, ack_ms = TCP_INFO.unpack(link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size))
    if state in (CLOSE, CLOSE_WAIT):
        return "closed the connection"
    if state == ESTABLISHED and min(data_ms, ack_ms) > SILENCE * 1000:
        return f"has given no sign of life for {SILENCE:g} s"
    return ""


def watch(endpoints: Sequence[str]) -> Links | None:
    """Ends this process when one of the servers is gone; None without servers, and nothing to watch."""
    if not endpoints:
        return None
    names = {}
    for endpoint in endpoints:
        host, _, port = endpoint.rpartition(":")
        with contextlib.suppress(OSError, UnicodeError):  # it is shown by its address then
            names[socket.gethostbyname(host), int(port)] = endpoint
    links = Links(names, _end)
    links.start()
    return links


def _end(sentence: str) -> None:
    """The thread that computes may be hung inside ggml: nothing of it can be saved."""
    logger.error("%s: this worker ends", sentence)
    logging.shutdown()
    os._exit(EXIT_LOST)
