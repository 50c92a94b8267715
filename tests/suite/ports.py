"""Ports for the servers of tests."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from pathlib import Path

LOWEST = 10_000

OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""First and last of the ports that the system gives to connections: 32768 to 60999 unless somebody changed it."""

TRIES = 1000


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, and which nobody is given before the server of a test listens there.

    Connections come from other ports than these, and the two workers of a run draw from ports of their own.
    """
    n_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % n_workers
    outgoing = _outgoing()
    for _ in range(TRIES):
        port = secrets.choice(range(LOWEST + worker, 1 << 16, n_workers))
        if port not in outgoing and _is_free(port):
            return port
    raise AssertionError(f"no port is free of those from {LOWEST} on that are not of {outgoing}")


def _outgoing() -> range:
    with contextlib.suppress(OSError):
        first, last = map(int, OUTGOING.read_text().split())
        return range(first, last + 1)
    return range(32768, 61000)


def _is_free(port: int) -> bool:
    with socket.socket() as sock, contextlib.suppress(OSError):
        sock.bind(("127.0.0.1", port))
        return True
    return False
