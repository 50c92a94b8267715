"""What a peer may send that is wrong: it costs that peer its connection, and nobody else anything."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.lending import protocol as p
from tests.lending.protocol import Client, Tensor, hello, message
from tests.lending.server_process import RpcServer

Lend = Callable[..., RpcServer]
Attack = Callable[[Client], None]

BEFORE_HELLO = {
    "nothing": b"",
    "HTTP": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    "TLS": bytes.fromhex("16030100c2010000be0303") + bytes(100),
    "another command": message(p.DEVICE_COUNT, b""),
    "HELLO of version 2": message(p.HELLO, b""),
    "HELLO of a longer version": message(p.HELLO, bytes(32)),
    "HELLO of no end": message(p.HELLO, bytes(24), 1 << 63),
    "half a HELLO": hello()[:20],
    "half a head": hello()[:5],
}

FIXED_SIZES = {
    p.ALLOC_BUFFER: 12, p.GET_ALIGNMENT: 4, p.GET_MAX_SIZE: 4, p.BUFFER_GET_BASE: 8, p.FREE_BUFFER: 8,
    p.BUFFER_CLEAR: 9, p.SET_TENSOR_HASH: 312, p.GET_TENSOR: 312, p.COPY_TENSOR: 592, p.GET_DEVICE_MEMORY: 4,
    p.INIT_TENSOR: 296, p.GET_ALLOC_SIZE: 4 + 11 * 296, p.DEVICE_COUNT: 0, p.GRAPH_RECOMPUTE: 4, p.MEMSET_TENSOR: 313,
}  # fmt: skip
"""Bytes of each command's body, but for those of any size."""

OPEN_SIZES = (p.SET_TENSOR, p.GRAPH_COMPUTE)


def lengths() -> Iterator[bytes]:
    """Messages whose length is wrong, or is not that of what follows."""
    for command, size in FIXED_SIZES.items():
        yield message(command, bytes(size + 1))
        yield message(command, bytes(size), (1 << 64) - 1)
        if size:
            yield message(command, bytes(size - 1))
            yield message(command, bytes(size))[:-1]
    for command in OPEN_SIZES:
        for length in (1 << 40, 1 << 62, (1 << 64) - 1):
            yield message(command, b"", length)
        yield message(command, b"")
        yield message(command, bytes(7))
        yield message(command, bytes(100), 1 << 20)


def unknown() -> Iterator[bytes]:
    for command in (p.HELLO, p.NONE, 19, 20, 64, 127, 128, 200, 254, 255):
        yield message(command, bytes(24))


def beyond() -> Iterator[bytes]:
    """Devices, buffers and addresses that there are not."""
    nobody = Tensor(1, 0xDEAD0000, 0xDEAD0000)
    for command in (p.GET_ALIGNMENT, p.GET_MAX_SIZE, p.GET_DEVICE_MEMORY, p.GRAPH_RECOMPUTE):
        yield message(command, struct.pack("<I", 7))
    for command in (p.BUFFER_GET_BASE, p.FREE_BUFFER):
        for handle in (0, 1, 0xDEAD0000, (1 << 64) - 1):
            yield message(command, struct.pack("<Q", handle))
    yield message(p.ALLOC_BUFFER, struct.pack("<IQ", 3, 4096))
    yield message(p.GRAPH_RECOMPUTE, struct.pack("<I", 0))
    for tensor in (nobody, replace(nobody, type=4), replace(nobody, type=1 << 31), replace(nobody, n=(1 << 32) - 1)):
        yield message(p.SET_TENSOR, tensor.packed() + struct.pack("<BQ", 0, 0) + b"data")
        yield message(p.GET_TENSOR, tensor.packed() + struct.pack("<QQ", 0, 1 << 40))
        yield message(p.MEMSET_TENSOR, tensor.packed() + struct.pack("<QQB", 0, 4, 1))
        yield message(p.COPY_TENSOR, tensor.packed() * 2)
    for n_nodes, n_tensors in ((1 << 31, 0), ((1 << 32) - 1, (1 << 32) - 1), (1, 1 << 31)):
        yield message(p.GRAPH_COMPUTE, struct.pack("<IIQI", 0, n_nodes, 5, n_tensors))
    yield message(p.GRAPH_COMPUTE, struct.pack("<IIQI", 0, 1, 5, 0))


def sent(data: bytes) -> Attack:
    def attack(client: Client) -> None:
        client.send(data)

    return attack


def out_of_its_buffer(command: int, data: int, n: int, offset: int, size: int) -> Attack:
    """A tensor at `data` bytes from the start of a buffer of 4,096, `n` numbers long."""

    def attack(client: Client) -> None:
        buffer, _ = client.alloc(4096)
        tensor = Tensor(1, buffer, client.base(buffer) + data, n).packed()
        if command == p.SET_TENSOR:
            client.tell(command, tensor + struct.pack("<BQ", 0, offset) + bytes(size))
        elif command == p.MEMSET_TENSOR:
            client.tell(command, tensor + struct.pack("<QQB", offset, size, 0))
        else:
            client.tell(command, tensor + struct.pack("<QQ", offset, size))

    return attack


def graph(op: int, sources: tuple[int, ...]) -> Attack:
    """Of one node, whose operation or sources are not to be had."""

    def attack(client: Client) -> None:
        buffer, _ = client.alloc(4096)
        node = Tensor(1, buffer, client.base(buffer), op=op, sources=sources)
        client.compute([node], [node])

    return attack


def after_hello() -> list[Attack]:
    chance = random.Random(7)
    attacks = [sent(data) for data in (*lengths(), *unknown(), *beyond())]
    for command in (p.SET_TENSOR, p.GET_TENSOR, p.MEMSET_TENSOR):
        attacks += [
            out_of_its_buffer(command, 0, 4, 1 << 40, 16),
            out_of_its_buffer(command, 4090, 4, 0, 16),
            out_of_its_buffer(command, -64, 4, 0, 16),
            out_of_its_buffer(command, 0, 1024, 4000, 200),
            out_of_its_buffer(command, 0, 4, (1 << 64) - 8, 16),
        ]
    attacks += [graph(op, sources) for op in (p.OP_ADD, 50, 100, 5000) for sources in ((), (1, 1), (9, 9))]
    attacks += [sent(chance.randbytes(chance.randrange(1, 4000))) for _ in range(60)]
    return attacks


def test_there_are_enough_of_them() -> None:
    assert len(after_hello()) + len(BEFORE_HELLO) >= 200


def test_no_hello_no_process(lend: Lend) -> None:
    server = lend()
    for n_turned_away, what in enumerate(BEFORE_HELLO.values(), 1):
        with server.client(greet=False) as peer:
            peer.send(what)
            peer.half_close()
            assert peer.is_closed()
        server.wait_log("turned away", n_turned_away)
    assert server.n_came() == 0
    with server.client() as client:
        assert client.sum([1], [2]) == (3,)


@pytest.mark.slow
def test_malformed_messages_cost_their_sender_alone(lend: Lend) -> None:
    server = lend("--rpc-server-threads", "1")
    attacks = after_hello()
    with server.client() as bystander:
        for start in range(0, len(attacks), 20):
            for attack in attacks[start : start + 20]:
                with server.client() as peer:
                    peer.attack(attack)
            with server.client() as client:
                assert client.sum([start], [2]) == (start + 2,)
        assert bystander.sum([1], [2]) == (3,)
    server.wait_idle()
    assert server.n_came() == server.n_gone() == len(attacks) + -(-len(attacks) // 20) + 1
    assert server.stop() == 0
