"""HTTP/2: what one stream does wrong, or has done to it, is no other stream's concern."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from h2.errors import ErrorCodes
from h2.events import Event, RequestReceived, StreamReset
from hyperframe.frame import DataFrame, PriorityFrame, WindowUpdateFrame

from llamabox.clients.state import WorkerState
from llamabox.server.listening import h2_streams, listener, unread
from llamabox.server.listening.config import ListenConfig
from tests.server.fake_client import FakeTextClient, delta, finished, saying, started
from tests.server.harness import Running, running
from tests.server.listening.h2_client import H2Client

KEY = ListenConfig(api_keys=frozenset({"secret"}))
SITE = [(b":scheme", b"http"), (b":authority", b"localhost")]
PROMPT = b'{"prompt": "a", "stream": true}'


def asking(client: H2Client, body: bytes = PROMPT) -> int:
    """A stream of somebody who is in the right."""
    stream_id = client.ask("POST", "/completion", ("x-api-key", "secret"), ("te", "trailers"), end=False)
    client.connection.send_data(stream_id, body, end_stream=True)
    return stream_id


async def bystander(act: Callable[[Running[FakeTextClient], H2Client], Awaitable[None]]) -> None:
    """`act` on a connection over which somebody else reads a stream, which goes on."""
    client = FakeTextClient()
    async with running(client, KEY) as server, H2Client.to(server) as h2:
        other = asking(h2)
        await h2.flush()
        generation = await client.submitted()
        generation.push(started(generation.submit), delta(generation.submit, "one", 1))
        await act(server, h2)
        generation.push(finished(generation.submit, 1))
        assert await h2.status(other) == 200
        assert generation.n_aborts == 0


REFUSALS = (("POST", "/completion", 401), ("GET", "/health", 200), ("PUT", "/health", 405))


@pytest.mark.parametrize(("method", "path", "status"), REFUSALS)
def test_a_refused_upload_is_read_on(method: str, path: str, status: int) -> None:
    async def act(server: Running[FakeTextClient], h2: H2Client) -> None:
        for _ in range(3):  # the windows are given back: each is ten times as large as they are
            stream_id = h2.ask(method, path, end=False)
            await h2.upload(stream_id, 655_350)
            assert await h2.status(stream_id) == status
            assert not [event for event in h2.events if isinstance(event, StreamReset)]

    asyncio.run(bystander(act))


@pytest.mark.parametrize(("method", "path", "status"), REFUSALS)
def test_an_upload_that_stops_is_reset_without_an_error(
    method: str, path: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "SILENCE", 0.1)

    async def act(server: Running[FakeTextClient], h2: H2Client) -> None:
        for _ in range(5):
            stream_id = h2.ask(method, path, end=False)
            h2.connection.send_data(stream_id, bytes(16_000))
            assert await h2.status(stream_id) == status
            reset = await h2.until(StreamReset, stream_id)
            assert isinstance(reset, StreamReset)
            assert reset.error_code == ErrorCodes.NO_ERROR
            for _ in range(4):  # on its way when the reset came
                frame = DataFrame(stream_id, bytes(8_000))
                h2._writer.write(frame.serialize())
        stream_id = h2.ask("POST", "/nothing", ("x-api-key", "secret"), end=False)
        await h2.upload(stream_id, 655_350)
        assert await h2.status(stream_id) == 404

    asyncio.run(bystander(act))


def test_an_upload_without_end_is_reset_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "SECONDS", 0.2)

    async def act(server: Running[FakeTextClient], h2: H2Client) -> None:
        stream_id = h2.ask("POST", "/completion", end=False)
        await h2.upload(stream_id, 1 << 40)
        assert await h2.status(stream_id) == 401
        assert (await h2.until(StreamReset, stream_id)).error_code == ErrorCodes.NO_ERROR  # type: ignore[attr-defined]

    asyncio.run(bystander(act))


def frames(stream_id: int) -> dict[str, bytes]:
    """What a stream may be hit by, as bytes: before it is opened, or after it has ended."""
    update = WindowUpdateFrame(stream_id)
    update.window_increment = 1
    priority = PriorityFrame(stream_id)
    priority.stream_weight, priority.exclusive = 255, True
    return {"window": update.serialize(), "priority": priority.serialize()}


@pytest.mark.parametrize("kind", ["window", "priority"])
def test_events_of_a_stream_that_has_ended(kind: str) -> None:
    async def act(server: Running[FakeTextClient], h2: H2Client) -> None:
        for _ in range(3):
            stream_id = h2.ask()
            assert await h2.status(stream_id) == 200
            h2._writer.write(frames(stream_id)[kind])
        assert await h2.status(h2.ask()) == 200

    asyncio.run(bystander(act))


def test_priorities_of_thousands_of_streams_that_never_come() -> None:
    async def act(server: Running[FakeTextClient], h2: H2Client) -> None:
        for stream_id in range(10_001, 16_001, 2):
            h2._writer.write(frames(stream_id)["priority"])
        assert await h2.status(h2.ask()) == 200

    asyncio.run(bystander(act))


@pytest.mark.parametrize(
    "head",
    [
        [(b":method", b"GET"), *SITE, (b":path", b"/\xff\xfe")],
        [(b":method", b"CONNECT"), SITE[1]],
        [(b":method", b"G\xc3\x84T"), *SITE, (b":path", b"/")],
        [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *SITE, (b":path", b"/completion")],
    ],
    ids=["path", "connect", "method", "websocket"],
)  # fmt: skip
def test_a_head_that_cannot_be_served_costs_its_stream_alone(head: list[tuple[bytes, bytes]]) -> None:
    async def act(server: Running[FakeTextClient], h2: H2Client) -> None:
        bad = h2.connection.get_next_available_stream_id()
        h2.connection.send_headers(bad, head, end_stream=True)
        while not any(getattr(event, "stream_id", None) == bad for event in h2.events):
            await h2.receive()
            assert not h2.is_closed
        assert await h2.status(h2.ask()) == 200

    asyncio.run(bystander(act))


def test_thousands_of_streams_with_trailers_on_one_connection() -> None:
    """The tree of priorities takes a thousand streams."""

    async def main() -> None:
        async with running(FakeTextClient(saying("a")), within=90) as server, H2Client.to(server) as h2:
            for _ in range(24):
                streams = [asking(h2) for _ in range(50)]
                for stream_id in streams:
                    assert await h2.status(stream_id) == 200
                h2.events.clear()

    asyncio.run(main())


@pytest.mark.parametrize(("path", "how"), [("/health", "reset"), ("/completion", "reset"), ("/completion", "provoked")])
def test_rapid_resets_end_the_connection(path: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the client provokes by a window too large count as well."""
    begun: list[int] = []
    handle = h2_streams.H2Protocol._handle_events

    async def counting(self: h2_streams.H2Protocol, events: list[Event]) -> None:
        begun.extend(event.stream_id for event in events if isinstance(event, RequestReceived) and event.stream_id)
        await handle(self, events)

    monkeypatch.setattr(h2_streams.H2Protocol, "_handle_events", counting)

    async def main() -> None:
        client = FakeTextClient()
        async with running(client) as server, H2Client.to(server) as h2:
            n_sent = 0
            while h2.goaway is None and n_sent < 40_000:
                for _ in range(50):
                    stream_id = h2.ask("GET" if path == "/health" else "POST", path, end=path == "/health")
                    if how == "reset":
                        h2.connection.reset_stream(stream_id, ErrorCodes.CANCEL)
                    else:
                        await h2.flush()
                        update = WindowUpdateFrame(stream_id)
                        update.window_increment = (1 << 31) - 1
                        h2._writer.write(update.serialize())
                n_sent += 50
                try:
                    await h2.flush()
                    async with asyncio.timeout(0.001 if how == "reset" else None):
                        await h2.receive()
                        while how == "provoked" and h2.goaway is None and h2.connection.open_outbound_streams:
                            await h2.receive()
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
            assert h2.goaway in (ErrorCodes.ENHANCE_YOUR_CALM, None)
            assert len(begun) < 1.5 * h2_streams.RESETS_AT_ONCE  # what was sent after those is not even looked at
            assert (await server.http.get("/health")).status_code == 200
            await server.app.state.site.lifecycle.drained()

    asyncio.run(main())


def test_clients_that_give_their_streams_up_now_and_then_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy's connection lives for days: what was given up is forgotten in time."""
    monkeypatch.setattr(h2_streams, "RESETS_AT_ONCE", 8)
    monkeypatch.setattr(h2_streams, "RESETS_PER_SECOND", 1e6)

    async def main() -> None:
        client = FakeTextClient()
        async with running(client) as server, H2Client.to(server) as h2:
            for _ in range(40):
                stream_id = asking(h2)
                await h2.flush()
                generation = await client.submitted()
                h2.connection.reset_stream(stream_id, ErrorCodes.CANCEL)
                await h2.flush()
                await generation.aborted.wait()
            assert await h2.status(h2.ask()) == 200

    asyncio.run(main())


def test_a_model_that_still_loads_is_told_to_every_upload() -> None:
    async def main() -> None:
        client = FakeTextClient()
        client.state = WorkerState.LOADING
        async with running(client) as server, H2Client.to(server) as h2:
            for _ in range(4):
                stream_id = h2.ask("POST", "/completion", end=False)
                await h2.upload(stream_id, 300_000)
                assert await h2.status(stream_id) == 503

    asyncio.run(main())
