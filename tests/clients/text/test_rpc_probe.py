"""RPC servers of every kind, and what is said of them. Each is a real socket with a script behind it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest

from llamabox.clients.text import rpc_probe
from llamabox.clients.text.rpc_probe import DEVICE_COUNT, GET_DEVICE_MEMORY, HELLO, Unusable, probe
from tests.clients.harness import run

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def server_of(version: tuple[int, int, int] = (7, 0, 0), devices: tuple[tuple[int, int], ...] = ((5, 9),)) -> Script:
    """An RPC server by the book: it takes no command that is not one, nor a body of another length."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = True
        while head := await reader.read(1):
            [size] = struct.unpack("<Q", await reader.readexactly(8))
            body = await reader.readexactly(size)
            assert (head[0] == HELLO) == first, "the greeting comes first, and once"
            first = False
            match head[0]:
                case 14:  # HELLO
                    assert size == 24
                    answer = bytes((*version, 0)) + bytes(24)
                case 15:  # DEVICE_COUNT
                    assert size == 0
                    answer = struct.pack("<I", len(devices))
                case 11:  # GET_DEVICE_MEMORY
                    [index] = struct.unpack("<I", body)
                    answer = struct.pack("<QQ", *devices[index])
                case command:
                    raise AssertionError(f"command {command}")
            writer.write(struct.pack("<Q", len(answer)) + answer)

    return serve


def saying(what: bytes) -> Script:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(what)
        await reader.read(-1)

    return serve


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(9)
    writer.write_eof()


def hosted(script: Script) -> Script:
    """The script, with its end of the connection closed after it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    return serve


async def probed(script: Script) -> rpc_probe.RpcServer:
    """The answer to one probe. The script ends with its connection, before this does."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hosted(script)(reader, writer)
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        try:
            return await probe(f"localhost:{server.sockets[0].getsockname()[1]}")
        finally:
            await ended.wait()


def test_the_commands_have_the_protocols_numbers() -> None:
    assert (GET_DEVICE_MEMORY, HELLO, DEVICE_COUNT) == (11, 14, 15)


def test_version_and_memory_of_every_device() -> None:
    async def main() -> None:
        found = await probed(server_of((7, 0, 3), ((1 << 30, 1 << 34), (0, 0))))
        assert found.version == (7, 0, 3)
        assert found.memory == ((1 << 30, 1 << 34), (0, 0))

    run(main())


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (server_of((6, 2, 1)), r"7\.0\.0 here and 6\.2\.1 there"),
        (server_of((7, 1, 0)), r"7\.0\.0 here and 7\.1\.0 there"),
        (server_of(devices=()), "no device"),
        (saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "no RPC server"),
        (saying(b"SSH-2.0-OpenSSH_9.6\r\n"), "no RPC server"),
        (saying(struct.pack("<Q", 1 << 62)), "no RPC server"),
        (hang_up, "closed the connection: it is no RPC server"),
    ],
)
def test_why_a_server_will_not_do(script: Script, reason: str) -> None:
    async def main() -> None:
        with pytest.raises(Unusable, match=reason):
            await probed(script)

    run(main())


def test_a_silent_one_is_waited_for_no_longer_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_probe, "PATIENCE", 0.05)

    async def main() -> None:
        with pytest.raises(Unusable, match="no answer within"):
            await probed(saying(b""))

    run(main())


def test_nobody_there() -> None:
    with socket.socket() as taken:  # bound, and does not listen
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        async def main() -> None:
            with pytest.raises(Unusable, match="connection refused"):
                await probe(f"127.0.0.1:{port}")
            with pytest.raises(Unusable, match="no machine of that name"):
                await probe(f"no-such-machine.invalid:{port}")

        run(main())


@pytest.mark.parametrize("host", ["10.0..2", "a" * 64, ".a"])
def test_what_cannot_be_a_name(host: str) -> None:
    async def main() -> None:
        with pytest.raises(Unusable, match="no name that a machine can have"):
            await probe(f"{host}:50052")

    run(main())
