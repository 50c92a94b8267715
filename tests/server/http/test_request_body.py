"""The bodies of requests: what all of them may hold together, how they are packed, and how many may come at once."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message

from llamabox.errors import Unavailable
from llamabox.server.http.request_body import SMALL, BodyBudget, Lease, read_body
from llamabox.server.listening import listener
from llamabox.server.listening.config import ListenConfig
from tests.server.fake_client import FakeTextClient, delta, saying, started
from tests.server.harness import Running, hang_up, running

MIB = 1 << 20
BODY = b'{"prompt": "a"}'


def held(server: Running[FakeTextClient]) -> int:
    bodies: BodyBudget = server.app.state.site.bodies
    return bodies.n_held


@contextlib.asynccontextmanager
async def unfinished(server: Running[FakeTextClient], n_bytes: int) -> AsyncIterator[asyncio.StreamReader]:
    """A body of which all but one byte has come."""
    reader, writer = await server.connect()
    writer.write(b"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (n_bytes + 1))
    writer.write(b" " * n_bytes)
    try:
        yield reader
    finally:
        await hang_up(writer)


async def until_held(server: Running[FakeTextClient], n_bytes: int) -> None:
    while held(server) != n_bytes:
        await asyncio.sleep(0.01)


def test_unfinished_bodies_share_one_budget() -> None:
    async def scene() -> None:
        config = ListenConfig(max_body=4 * MIB, max_bodies=10 * MIB)
        async with running(FakeTextClient(saying("a")), config) as server, contextlib.AsyncExitStack() as stack:
            for n in range(1, 4):
                await stack.enter_async_context(unfinished(server, 3 * MIB))
                await until_held(server, n * 3 * MIB)
            async with unfinished(server, 3 * MIB) as refused:
                assert b"503" in await refused.readline()
                assert b"retry-after: 2" in (await refused.readuntil(b"\r\n\r\n")).lower()
                assert b"try again later" in await refused.readuntil(b"}")
            await until_held(server, 9 * MIB)
            assert (await server.http.get("/health")).status_code == 200
            assert (await server.http.post("/completion", content=BODY)).status_code == 200
            await stack.aclose()
            await until_held(server, 0)
            assert (await server.http.post("/completion", content=b" " * 3 * MIB + BODY)).status_code == 200

    asyncio.run(scene())


def test_a_body_is_held_until_its_answer_is_made() -> None:
    async def scene(stream: bool) -> None:
        client = FakeTextClient()
        body = b'{"prompt": "a", "stream": %s}' % (b"true" if stream else b"false")
        async with running(client) as server:
            asking = asyncio.create_task(server.http.post("/completion", content=body))
            generation = await client.submitted()
            generation.push(started(generation.submit), delta(generation.submit, "a", 1))
            assert held(server) == (0 if stream else len(body))
            asking.cancel()
            await asyncio.wait((asking,))
            await generation.aborted.wait()
            await until_held(server, 0)

    asyncio.run(scene(True))
    asyncio.run(scene(False))


def test_large_bodies_leave_room_for_small_ones() -> None:
    budget = BodyBudget(8 * MIB)
    with Lease(budget) as large, Lease(budget) as small:
        large.grow(8 * MIB)
        with pytest.raises(Unavailable):
            large.grow(1)
        small.grow(SMALL)
        with pytest.raises(Unavailable):
            small.grow(1)
        assert budget.n_held == 9 * MIB
    assert budget.n_held == 0


def test_a_round_of_the_event_loop_takes_in_one_piece_of_all_large_bodies() -> None:
    n_pieces, piece = 24, b" " * (SMALL // 4)
    taken = Counter[int]()
    by_round = Counter[int]()
    n_rounds = 0

    async def scene() -> None:
        budget = BodyBudget(64 * MIB)

        async def read(number: int) -> bytearray:
            async def receive() -> Message:
                taken[number] += 1
                if taken[number] * len(piece) > SMALL + len(piece):
                    by_round[n_rounds] += 1
                return {"type": "http.request", "body": piece, "more_body": taken[number] < n_pieces}

            scope = {"type": "http", "headers": []}
            with Lease(budget) as lease:
                return await read_body(scope, receive, lease, limit=64 * MIB, gap=60, seconds=60)

        async def count_rounds() -> None:
            nonlocal n_rounds
            while True:
                await asyncio.sleep(0)
                n_rounds += 1

        counting = asyncio.create_task(count_rounds())
        bodies = await asyncio.gather(*(read(number) for number in range(8)))
        counting.cancel()
        assert {len(body) for body in bodies} == {n_pieces * len(piece)}

    asyncio.run(scene())
    assert max(by_round.values()) == 1


def test_a_budget_smaller_than_one_body_is_that_of_one_body() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(saying("a")), ListenConfig(max_body=4 * MIB, max_bodies=MIB)) as server:
            assert (await server.http.post("/completion", content=b" " * 3 * MIB + BODY)).status_code == 200

    asyncio.run(scene())


def test_more_connections_than_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that ask for nothing make room; where all are busy, the health is told and the rest is a 503."""
    monkeypatch.setattr(listener, "SPARE", 2)

    async def scene() -> None:
        client = FakeTextClient()
        async with running(client, ListenConfig(max_connections=4)) as server, contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                _, writer = await server.post_raw("/completion", {"prompt": "a"})
                stack.push_async_callback(hang_up, writer)
                await client.submitted()
            idle_reader, idle_writer = await server.connect()
            while server.listener.n_connections < 4:
                await asyncio.sleep(0.01)
            _, writer = await server.post_raw("/completion", {"prompt": "a"})
            stack.push_async_callback(hang_up, writer)
            await client.submitted()
            with contextlib.suppress(ConnectionError):
                assert await idle_reader.read() == b"", "the idle one made room"
            await hang_up(idle_writer)
            assert (await server.http.get("/health")).status_code == 200
            reply = await server.http.post("/completion", content=BODY)
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")
            assert reply.headers["connection"] == "close"
            assert "as many connections" in reply.json()["detail"]
            assert len(client.submits) == 4
            assert (await server.http.get("/health")).status_code == 200
            await stack.aclose()
            while server.listener.n_connections > 1:
                await asyncio.sleep(0.01)
            reply = await server.http.get("/v1/models")
            assert (reply.status_code, server.listener.n_connections) == (200, 1), "it has its place now"

    asyncio.run(scene())


def test_a_connection_that_has_ended_is_none() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(), ListenConfig(keep_alive=3600)) as server:
            for sent in (b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"):
                _, writer = await server.connect()
                writer.write(sent)
                while server.listener.n_connections < 1:
                    await asyncio.sleep(0.01)
                await hang_up(writer)
                while server.listener.n_connections:
                    await asyncio.sleep(0.01)

    asyncio.run(scene())


@pytest.mark.parametrize("n_spare", [0, 1])
def test_connections_beyond_all_bounds_are_closed(n_spare: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "SPARE", n_spare)

    async def scene() -> None:
        client = FakeTextClient()
        async with running(client, ListenConfig(max_connections=1)) as server, contextlib.AsyncExitStack() as stack:
            for n in range(1 + n_spare):
                reader, writer = await server.post_raw("/completion", {"prompt": "a"})
                stack.push_async_callback(hang_up, writer)
                if n == 0:
                    await client.submitted()
                else:
                    assert b"503" in await reader.readline()
            reader, writer = await server.connect()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            assert server.listener.n_connections <= 1 + n_spare
            await hang_up(writer)

    asyncio.run(scene())


BOM = b"\xef\xbb\xbf"
PACKED = gzip.compress(BODY)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("identity", BODY), ("", BODY), ("identity", BOM + BODY), ("gzip", gzip.compress(BOM + BODY)),
        ("Identity, identity", BODY), ("gzip", PACKED), ("x-gzip", PACKED),
        ("GZIP, identity", PACKED),
        ("gzip", gzip.compress(b" " * 5 * MIB + BODY)), ("gzip", gzip.compress(b" " * (MIB - len(BODY)) + BODY)),
    ],
)  # fmt: skip
def test_bodies_that_are_read(coding: str, body: bytes) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for n in range(0, len(body), 7):
            yield body[n : n + 7]

    async def scene() -> None:
        async with running(FakeTextClient(saying("a"))) as server:
            for content in (body, pieces()):
                reply = await server.http.post("/completion", content=content, headers={"Content-Encoding": coding})
                assert (reply.status_code, reply.json()["content"]) == (200, "a")
            assert held(server) == 0

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("coding", "body", "status", "said"),
    [
        ("gzip", PACKED[:-3], 400, "cut off"), ("gzip", PACKED[:5], 400, "cut off"),
        ("gzip", BODY, 400, "not valid gzip"),
        ("gzip", PACKED + b"x", 400, "goes on behind"), ("gzip", PACKED + PACKED, 400, "goes on behind"),
        ("gzip, gzip", gzip.compress(PACKED), 400, "gzip, gzip"), ("br", BODY, 400, "br, which is not read"),
        ("zstd", b"", 400, "zstd"), ("gzip", gzip.compress(bytes(200 * MIB)), 413, "4194304 bytes"),
        ("gzip", gzip.compress(bytes(4 * MIB + 1)), 413, "4194304 bytes"),
    ],
)  # fmt: skip
def test_bodies_that_are_not_read(coding: str, body: bytes, status: int, said: str) -> None:
    async def scene() -> None:
        async with running(FakeTextClient(), ListenConfig(max_body=4 * MIB)) as server:
            reply = await server.http.post("/completion", content=body, headers={"Content-Encoding": coding})
            assert reply.status_code == status
            assert said in reply.json()["detail"]
            assert held(server) == 0

    asyncio.run(scene())


def test_what_is_unpacked_counts() -> None:
    async def scene() -> None:
        config = ListenConfig(max_body=4 * MIB, max_bodies=8 * MIB)
        async with (
            running(FakeTextClient(), config) as server,
            unfinished(server, 4 * MIB - 1),
            unfinished(server, MIB),
        ):
            await until_held(server, 5 * MIB - 1)
            packed = gzip.compress(bytes(4 * MIB))
            reply = await server.http.post("/completion", content=packed, headers={"Content-Encoding": "gzip"})
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")
            assert held(server) == 5 * MIB - 1

    asyncio.run(scene())
