"""Bytes from one socket to another, by the kernel or by copying: the same bytes, and then the end."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from llamabox.workers.lending.relay import move


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        return near, server.accept()[0]


@pytest.mark.parametrize("how", ["splice", "copy"])
def test_every_byte_arrives_in_order(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "copy":
        monkeypatch.delattr(os, "splice", raising=False)
    data = os.urandom(5 << 20)
    sender, source = pair()
    target, receiver = pair()
    with sender, source, target, receiver:
        moving = threading.Thread(target=move, args=(source, target))
        sending = threading.Thread(target=lambda: (sender.sendall(data), sender.close()))
        moving.start()
        sending.start()
        got = bytearray()
        while part := receiver.recv(1 << 16):
            got += part
        moving.join()
        sending.join()
        assert bytes(got) == data


@pytest.mark.parametrize("how", ["splice", "copy"])
def test_it_ends_where_the_target_is_gone(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "copy":
        monkeypatch.delattr(os, "splice", raising=False)
    sender, source = pair()
    target, receiver = pair()
    with sender, source, target:
        receiver.close()
        moving = threading.Thread(target=move, args=(source, target))
        moving.start()
        with sender:
            while moving.is_alive():
                sender.send(b"x")
                moving.join(0.01)
