"""Servers of tests that start at the same time get ports of their own."""

from __future__ import annotations

import socket

import pytest

from tests.suite.ports import OUTGOING, free_port


def test_workers_draw_from_ports_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "2")
    drawn = []
    for worker in ("gw0", "gw1", "gw2"):  # a third replaces one that crashed
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        drawn.append({free_port() for _ in range(100)})
    assert not drawn[0] & drawn[1]
    assert len({port % 2 for port in drawn[2]}) == 1


def test_connections_take_none_of_them() -> None:
    first, last = map(int, OUTGOING.read_text().split())
    assert not any(first <= free_port() <= last for _ in range(100))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", free_port()))
