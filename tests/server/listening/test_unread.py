"""A reply sent before the body was read reaches every client, whatever the reply says."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from llamabox.clients.state import WorkerState
from llamabox.server.listening import unread
from llamabox.server.listening.config import ListenConfig
from tests.server.fake_client import FakeTextClient
from tests.server.harness import Running, running

SIZE = 16 << 20
"""Bytes of a body: more than the buffers of two sockets and of two event loops hold."""

KEY = ListenConfig(api_keys=frozenset({"secret"}))


@dataclass(frozen=True)
class Refusal:
    status: int
    method: str = "POST"
    path: str = "/completion"
    config: ListenConfig = field(default_factory=ListenConfig)
    state: WorkerState = WorkerState.READY


REFUSALS = (
    Refusal(200, "GET", "/health"),
    Refusal(401, config=KEY),
    Refusal(401, path="/slots/0?action=save", config=KEY),
    Refusal(404, path="/nothing"),
    Refusal(405, "PUT"),
    Refusal(413, config=ListenConfig(max_body=SIZE // 2)),
    Refusal(501, "GET", "/slots"),
    Refusal(501, path="/lora-adapters"),
    Refusal(503, state=WorkerState.LOADING),
)


def each(refusals: tuple[Refusal, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("refusal", refusals, ids=lambda one: f"{one.status}-{one.method}{one.path}")


def scene(refusal: Refusal, act: Callable[[Running[FakeTextClient]], None]) -> None:
    """Runs `act` on a thread of its own beside the server."""

    async def main() -> None:
        client = FakeTextClient()
        client.state = refusal.state
        async with running(client, refusal.config, within=60) as server:
            await asyncio.to_thread(act, server)
            await server.app.state.site.lifecycle.drained()

    asyncio.run(main())


@each(REFUSALS)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_writes_all_before_it_reads_gets_its_reply(refusal: Refusal, chunked: bool) -> None:
    """As urllib, requests and Node's fetch do, and nginx: a reset while they write is all they ever see."""

    def act(server: Running[FakeTextClient]) -> None:
        http_client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        pieces = (bytes(1 << 16) for _ in range(SIZE >> 16))
        headers = {} if chunked else {"Content-Length": str(SIZE)}
        http_client.request(refusal.method, refusal.path, pieces, headers, encode_chunked=chunked)
        reply = http_client.getresponse()
        assert reply.status == refusal.status
        assert len(reply.read()) == int(reply.headers["Content-Length"])
        assert reply.headers["Connection"] == "close"
        http_client.close()

    scene(refusal, act)


@each(REFUSALS)
def test_the_reply_does_not_wait_for_the_body(refusal: Refusal) -> None:
    async def main() -> None:
        client = FakeTextClient()
        client.state = refusal.state
        async with running(client, refusal.config) as server:
            reader, writer = await server.connect()
            head = f"{refusal.method} {refusal.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SIZE}\r\n\r\n"
            writer.write(head.encode())
            assert str(refusal.status).encode() in await reader.readline()
            length = int((await reader.readuntil(b"\r\n\r\n")).lower().split(b"content-length:")[1].split()[0])
            await reader.readexactly(length)
            writer.write(bytes(SIZE))
            await writer.drain()
            assert await reader.read() == b""
            writer.close()

    asyncio.run(main())


POST = b"POST /completion HTTP/1.1\r\n"
NO_REQUESTS = {
    "a long head": (431, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "),
    "no head": (431, b"NONSENSE "),
    "a bad chunk": (400, POST + b"Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "two hosts": (400, POST + b"Host: a\r\nHost: b\r\nContent-Length: 9999999\r\n\r\n"),
    "an unknown coding": (501, POST + b"Host: localhost\r\nTransfer-Encoding: gzip\r\n\r\n"),
}


@pytest.mark.parametrize("kind", NO_REQUESTS)
def test_bytes_that_are_no_request_are_read_on(kind: str) -> None:
    status, head = NO_REQUESTS[kind]

    def act(server: Running[FakeTextClient]) -> None:
        with socket.create_connection(("127.0.0.1", server.port), 60) as sock:
            sock.sendall(head)
            for _ in range(SIZE >> 16):
                sock.sendall(b"a" * (1 << 16))
            with sock.makefile("rb") as reply:
                assert reply.readline().startswith(b"HTTP/1.1 %d" % status)
                reply.read()

    scene(Refusal(200), act)


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["first", "later"])
def test_a_head_that_comes_whole_is_too_long_as_well(before: bytes) -> None:
    """Bodies are read in larger pieces than heads may have bytes."""

    def act(server: Running[FakeTextClient]) -> None:
        with socket.create_connection(("127.0.0.1", server.port), 60) as sock, sock.makefile("rb") as replies:
            if before:
                sock.sendall(before)
                assert replies.readline().startswith(b"HTTP/1.1 200")
                while replies.readline() != b"\r\n":
                    pass
                assert replies.read(len(b'{"status":"ok"}')) == b'{"status":"ok"}'
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 150_000 + b"\r\n\r\n")
            assert replies.readline().startswith(b"HTTP/1.1 431")

    scene(Refusal(200), act)


def test_a_reply_without_an_unread_body_keeps_the_connection() -> None:
    def act(server: Running[FakeTextClient]) -> None:
        http_client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for method, path, body in (("GET", "/health", None), ("POST", "/completion", b"{"), ("GET", "/nothing", None)):
            http_client.request(method, path, body)
            reply = http_client.getresponse()
            reply.read()
            assert "Connection" not in reply.headers
            sock = http_client.sock
            assert sock is not None
        http_client.close()

    scene(Refusal(200), act)


@pytest.mark.parametrize("sent", [b"", b"a piece"])
def test_a_client_that_stops_sending_is_not_waited_for(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "SILENCE", 0.1)

    async def main() -> None:
        async with running(FakeTextClient(), KEY) as server:
            reader, writer = await server.connect()
            writer.write(b"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n" + sent)
            assert b"401" in await reader.read()
            writer.close()

    asyncio.run(main())


@pytest.mark.parametrize(("timeout", "max_body"), [(600, 1 << 20), (0.2, 1 << 40)], ids=["bytes", "time"])
def test_a_client_that_never_stops_sending_is_cut_off(timeout: float, max_body: int) -> None:
    config = ListenConfig(api_keys=frozenset({"secret"}), max_body=max_body, timeout=timeout)

    async def main() -> None:
        async with running(FakeTextClient(), config) as server:
            _, writer = await server.connect()
            writer.write(b"POST /completion HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while True:  # the harness would not wait for ever
                    writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                    await writer.drain()
            writer.close()

    asyncio.run(main())
