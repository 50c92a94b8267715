"""The chunks of a stream take a short cut around ASGI where they can, and no client can tell."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from llamabox.server.http.sse import EventStream
from llamabox.server.listening.binding import bind_sockets
from llamabox.server.listening.config import ListenConfig
from llamabox.server.listening.listener import Listener
from llamabox.server.listening.patient_server import PatientServer

PIECES = [b"data: %d\n\n" % number for number in range(5)]


def streaming(pieces: list[bytes]) -> ASGIApp:
    """An app that answers everything with these pieces."""

    async def chunks() -> AsyncGenerator[bytes, None]:
        for piece in pieces:
            await asyncio.sleep(0)
            yield piece

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await EventStream(chunks(), ping_interval=0.0)(scope, receive, send)

    return app


@contextlib.asynccontextmanager
async def connected(app: ASGIApp) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    sockets = bind_sockets(["127.0.0.1"], 0)
    listener = Listener(app, ListenConfig(), sockets)
    await listener.start()
    try:
        async with asyncio.timeout(60.0):
            reader, writer = await asyncio.open_connection(*sockets[0].getsockname())
            yield reader, writer
            writer.close()
    finally:
        await listener.close(grace=0.5)


class Spy:
    """Sees which pieces were offered to the short cut, and which of them it took. It may be shut."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, is_open: bool = True) -> None:
        self.taken: list[bytes] = []
        self.refused: list[bytes] = []
        self.refuses = asyncio.Event()
        write_piece = PatientServer.write_piece

        def wrapped(server: PatientServer, piece: bytes) -> bool:
            is_taken = is_open and write_piece(server, piece)
            (self.taken if is_taken else self.refused).append(piece)
            if not is_taken:
                self.refuses.set()
            return is_taken

        monkeypatch.setattr(PatientServer, "write_piece", wrapped)


async def answer(request: bytes) -> bytes:
    """All bytes of the reply to one request, but for its date."""
    async with connected(streaming(PIECES)) as (reader, writer):
        writer.write(request)
        return re.sub(rb"date: [^\r]*\r\n", b"", await reader.read())


@pytest.mark.parametrize(
    ("request_", "is_cut"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", False),
    ],
)
def test_a_reply_is_the_same_to_the_byte(monkeypatch: pytest.MonkeyPatch, request_: bytes, is_cut: bool) -> None:
    with monkeypatch.context() as patch:
        Spy(patch, is_open=False)
        expected = asyncio.run(answer(request_))
    spy = Spy(monkeypatch)
    assert asyncio.run(answer(request_)) == expected
    assert (spy.taken, spy.refused) == ((PIECES[1:], []) if is_cut else ([], PIECES[1:]))


def test_a_connection_goes_on_behind_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)

    async def scene() -> None:
        async with connected(streaming(PIECES)) as (reader, writer):
            for _ in range(3):
                writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)  # the second waits behind the first
                replies = [await reader.readuntil(b"\r\n0\r\n\r\n") for _ in range(2)]
                assert all(reply.startswith(b"HTTP/1.1 200") for reply in replies)
                assert [re.findall(rb"data: \d\n\n", reply) for reply in replies] == [PIECES, PIECES]

    asyncio.run(scene())
    assert spy.taken == PIECES[1:] * 6


def test_a_client_that_pauses_gets_everything_in_order_and_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [b"%06d" % number * 5_000 for number in range(1_000)]  # more than any socket's buffer
    spy = Spy(monkeypatch)

    async def scene() -> None:
        async with connected(streaming(pieces)) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            await spy.refuses.wait()
            await asyncio.sleep(0)
            n_offered = len(spy.taken) + len(spy.refused)
            for _ in range(100):
                await asyncio.sleep(0)
            assert len(spy.taken) + len(spy.refused) <= n_offered + 3 < len(pieces)  # the buffer's high-water mark
            body = (await reader.read()).partition(b"\r\n\r\n")[2]
            assert body == b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    asyncio.run(scene())
