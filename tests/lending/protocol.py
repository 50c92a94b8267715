"""A client of ggml's RPC protocol 7 in plain Python: what tests send, rightly or wrongly."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

(
    ALLOC_BUFFER, GET_ALIGNMENT, GET_MAX_SIZE, BUFFER_GET_BASE, FREE_BUFFER, BUFFER_CLEAR, SET_TENSOR, SET_TENSOR_HASH,
    GET_TENSOR, COPY_TENSOR, GRAPH_COMPUTE, GET_DEVICE_MEMORY, INIT_TENSOR, GET_ALLOC_SIZE, HELLO, DEVICE_COUNT,
    GRAPH_RECOMPUTE, MEMSET_TENSOR, NONE,
) = range(19)  # fmt: skip

VERSION = (7, 0, 0)
CAPS_SIZE = 24
TYPE_F32 = 0
OP_NONE, OP_ADD = 0, 2
FLAG_COMPUTE = 16

_TENSOR = struct.Struct("<Q I Q 4I 4I I 16i i 10Q Q Q Q 64s i")


@dataclass(frozen=True)
class Tensor:
    """rpc_tensor: one of f32, in a buffer of the server's."""

    id: int
    buffer: int
    data: int
    n: int = 4
    type: int = TYPE_F32
    op: int = OP_NONE
    sources: Sequence[int] = ()

    def packed(self) -> bytes:
        size = self.n * 4 & 0xFFFFFFFF
        sources = [*self.sources, *(0 for _ in range(10 - len(self.sources)))]
        shape = (self.n, 1, 1, 1)
        strides = (4, size, size, size)
        return _TENSOR.pack(
            *(self.id, self.type, self.buffer, *shape, *strides, self.op, *([0] * 16), FLAG_COMPUTE, *sources),
            *(0, 0, self.data, b"test", 1),
        )

    def at(self, data: int) -> Tensor:
        return replace(self, data=data)


def message(command: int, body: bytes, length: int | None = None) -> bytes:
    """A request; `length` where it is to lie about its size."""
    return struct.pack("<BQ", command, len(body) if length is None else length) + body


def hello() -> bytes:
    return message(HELLO, bytes(CAPS_SIZE))


def fnv(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value


class Closed(Exception):
    """The server closed the connection instead of an answer."""


class Client:
    """A connection. With `greet` it has said HELLO and checked the version."""

    def __init__(self, port: int, host: str = "127.0.0.1", *, greet: bool = True, source: str | None = None) -> None:
        self.sock = socket.create_connection((host, port), 30, source_address=(source, 0) if source else None)
        if greet:
            try:
                answer = self.ask(HELLO, bytes(CAPS_SIZE))
            except BaseException:
                self.close()
                raise
            assert tuple(answer[:3]) == VERSION
            assert len(answer) == 4 + CAPS_SIZE

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def tell(self, command: int, body: bytes) -> None:
        """A request without an answer."""
        self.send(message(command, body))

    def ask(self, command: int, body: bytes = b"") -> bytes:
        self.send(message(command, body))
        return self.receive(struct.unpack("<Q", self.receive(8))[0])

    def receive(self, n_bytes: int) -> bytes:
        found = b""
        while len(found) < n_bytes:
            try:
                part = self.sock.recv(n_bytes - len(found))
            except ConnectionError as error:
                raise Closed from error
            if not part:
                raise Closed
            found += part
        return found

    def is_closed(self) -> bool:
        """Waits until the server closes the connection; what it sends before does not matter."""
        try:
            while self.sock.recv(1 << 16):
                pass
        except ConnectionError:
            pass
        return True

    def half_close(self) -> None:
        """No more comes from here; answers may."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def attack(self, attack: Callable[[Client], None]) -> None:
        """Whatever it sends, and then until the server is done with it."""
        with contextlib.suppress(ConnectionError):
            attack(self)
        self.half_close()
        assert self.is_closed()

    def n_devices(self) -> int:
        return int(struct.unpack("<I", self.ask(DEVICE_COUNT))[0])

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of the first device."""
        free, total = struct.unpack("<QQ", self.ask(GET_DEVICE_MEMORY, struct.pack("<I", 0)))
        return free, total

    def alloc(self, size: int) -> tuple[int, int]:
        """A buffer: its handle, 0 where there is no room, and its size."""
        handle, got = struct.unpack("<QQ", self.ask(ALLOC_BUFFER, struct.pack("<IQ", 0, size)))
        return handle, got

    def base(self, buffer: int) -> int:
        return int(struct.unpack("<Q", self.ask(BUFFER_GET_BASE, struct.pack("<Q", buffer)))[0])

    def free(self, buffer: int) -> None:
        self.tell(FREE_BUFFER, struct.pack("<Q", buffer))

    def clear(self, buffer: int, value: int) -> None:
        self.tell(BUFFER_CLEAR, struct.pack("<QB", buffer, value))

    def set(self, tensor: Tensor, data: bytes, offset: int = 0, cache: bool = False) -> None:
        self.send(self.set_message(tensor, data, offset, cache))

    def set_message(self, tensor: Tensor, data: bytes, offset: int = 0, cache: bool = False) -> bytes:
        return message(SET_TENSOR, tensor.packed() + struct.pack("<BQ", cache, offset) + data)

    def set_hash(self, tensor: Tensor, value: int) -> bool:
        """Whether the server has it."""
        return self.ask(SET_TENSOR_HASH, tensor.packed() + struct.pack("<QQ", 0, value)) == b"\1"

    def get(self, tensor: Tensor, size: int, offset: int = 0) -> bytes:
        return self.ask(GET_TENSOR, tensor.packed() + struct.pack("<QQ", offset, size))

    def compute(self, nodes: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
        ids = struct.pack(f"<{len(nodes)}Q", *(node.id for node in nodes))
        packed = b"".join(tensor.packed() for tensor in tensors)
        self.tell(
            GRAPH_COMPUTE,
            struct.pack("<II", 0, len(nodes)) + ids + struct.pack("<I", len(tensors)) + packed,
        )

    def sum(self, left: Sequence[float], right: Sequence[float]) -> tuple[float, ...]:
        """Computed by the server."""
        n = len(left)
        size = max(1024, 4 * n)
        buffer, _ = self.alloc(3 * size)
        base = self.base(buffer)
        a, b = (Tensor(1 + i, buffer, base + size * i, n) for i in range(2))
        total = Tensor(3, buffer, base + 2 * size, n, op=OP_ADD, sources=(1, 2))
        self.set(a, struct.pack(f"<{n}f", *left))
        self.set(b, struct.pack(f"<{n}f", *right))
        self.compute([total], [a, b, total])
        found = struct.unpack(f"<{n}f", self.get(total, 4 * n))
        self.free(buffer)
        return found

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
