"""Connections of this process, watched as a text worker watches those to its RPC servers."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from llamabox.workers.text.links import Links

Pair = tuple[socket.socket, socket.socket]


def kernel_name(descriptor: str) -> str:
    """The kernel's name of what is open, which it gives once. Empty for what was closed meanwhile."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/self/fd/{descriptor}")
    return ""


@pytest.fixture(autouse=True)
def only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests of this process have left open is not looked at: a worker has no such connections."""
    listed = os.listdir
    theirs = {kernel_name(name) for name in listed("/proc/self/fd")}
    monkeypatch.setattr(
        "llamabox.workers.text.links.os.listdir",
        lambda path: [name for name in listed(path) if kernel_name(name) not in theirs],
    )


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A TCP connection: our end, and the server's."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        with theirs:
            yield ours, theirs


def test_a_connection_is_made_to_keep_alive_and_its_end_is_noticed(pair: Pair) -> None:
    ours, theirs = pair
    host, port = ours.getpeername()
    links = Links({(host, port): "the.server:1"}, lambda sentence: None)
    assert links.look() == "", "the listening socket and those of other kinds are passed over"
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 1
    theirs.close()
    assert links.look() == "the RPC server the.server:1 closed the connection"


def test_a_connection_that_we_close_is_no_loss(pair: Pair) -> None:
    ours, _ = pair
    links = Links({}, lambda sentence: None)
    assert links.look() == ""
    ours.close()
    # What is left is the other end of it in this very process, which nobody but this test has.
    assert "closed the connection" in links.look()


def test_the_thread_tells_once_and_ends(pair: Pair) -> None:
    told: list[str] = []
    heard = threading.Event()

    def lost(sentence: str) -> None:
        told.append(sentence)
        heard.set()

    ours, theirs = pair
    links = Links({}, lost)
    links.start()
    theirs.close()
    assert heard.wait(30)
    links.close()
    assert told == [f"the RPC server 127.0.0.1:{ours.getpeername()[1]} closed the connection"]
