"""X-Request-Tokens-Per-Second on its way in, X-Response-Tokens-Per-Second on its way out."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import orjson
import pytest

from llamabox.errors import ServerFault
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.listening.config import ListenConfig
from tests.server.fake_client import INFO, FakeTextClient, delta, saying, started
from tests.server.harness import Running, running
from tests.server.listening.test_tls import certify, trusting

ROUTES = {
    "/completion": {"prompt": "a"},
    "/infill": {"input_prefix": "a", "input_suffix": "b"},
    "/v1/completions": {"prompt": ["a", "b"]},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
}
RATE = "x-response-tokens-per-second"


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("cap", "header", "expected"),
    [
        (20, None, 0),
        (20, "10", 10),
        (20, "20", 20),
        (20, "21", None),
        (20, "9" * 5000, 20),
        (20, "9" * 50, None),
        (20, "fast", 20),
        (20, "2.5", 20),
        (20, "", 20),
        (20, "0", 0),
        (20, "-3", 0),
        (0, "10", 0),
        (0, "fast", 0),
    ],
)
def test_what_the_header_asks_for(path: str, cap: int, header: str | None, expected: int | None) -> None:
    async def scene() -> None:
        client = FakeTextClient(saying("one", "two"), info=replace(INFO, tokens_per_second=cap))
        headers = {} if header is None else {"X-Request-Tokens-Per-Second": header}
        async with running(client, ModelConfig(enable_infill=True)) as server:
            for stream in (False, True):
                reply = await server.http.post(path, json={**ROUTES[path], "stream": stream}, headers=headers)
                if expected is None:
                    assert (reply.status_code, reply.headers["content-type"]) == (410, "text/plain; charset=utf-8")
                    assert reply.text == "This request exceeds the maximum tokens per second"
                else:
                    assert reply.status_code == 200
                    assert RATE not in reply.headers if stream else reply.headers[RATE] == "100.000000"
        assert {submit.params.tokens_per_second for submit in client.submits} == (
            set() if expected is None else {expected}
        )

    asyncio.run(scene())


async def over_http2(
    server: Running, config: ListenConfig, path: str, body: object, *extra: tuple[str, str]
) -> list[h2.events.Event]:
    """All events of one request's stream, as a bare HTTP/2 client sees them."""
    context: ssl.SSLContext = trusting(config)
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    data = orjson.dumps(body)
    pseudo = [(":method", "POST"), (":path", path), (":scheme", "https"), (":authority", "127.0.0.1")]
    connection.send_headers(1, [*pseudo, ("content-length", str(len(data))), *extra])
    connection.send_data(1, data, end_stream=True)
    found: list[h2.events.Event] = []
    while not any(isinstance(event, h2.events.StreamEnded | h2.events.StreamReset) for event in found):
        writer.write(connection.data_to_send())
        received = await reader.read(65536)
        assert received, "the connection ended before the stream"
        found += connection.receive_data(received)
    writer.close()
    return found


def headers_of(found: list[h2.events.Event], kind: type[h2.events.Event]) -> dict[str, str]:
    return dict(next((event.headers for event in found if isinstance(event, kind)), []))  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ListenConfig:
    return certify(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("path", ROUTES)
def test_a_stream_over_http2_ends_with_the_rate(config: ListenConfig, path: str) -> None:
    async def scene() -> None:
        async with running(FakeTextClient(saying("one", "two")), config, ModelConfig(enable_infill=True)) as server:
            body = {**ROUTES[path], "stream": True}
            found = await over_http2(server, config, path, body, ("te", "trailers"))
            assert headers_of(found, h2.events.ResponseReceived)["trailer"] == RATE
            assert headers_of(found, h2.events.TrailersReceived) == {RATE: "100.000000"}
            text = b"".join(event.data for event in found if isinstance(event, h2.events.DataReceived))
            assert text.endswith(b"}\n\n" if path in ("/completion", "/infill") else b"data: [DONE]\n\n")

            found = await over_http2(server, config, path, body)
            assert "trailer" not in headers_of(found, h2.events.ResponseReceived), "nobody asked for it"
            assert headers_of(found, h2.events.TrailersReceived) == {}

            found = await over_http2(server, config, path, ROUTES[path], ("te", "trailers"))
            assert headers_of(found, h2.events.ResponseReceived)[RATE] == "100.000000"

    asyncio.run(scene())


def test_a_stream_that_breaks_tells_the_rate_up_to_there(config: ListenConfig) -> None:
    async def scene() -> None:
        client = FakeTextClient()
        async with running(client, config) as server:
            body = {**ROUTES["/completion"], "stream": True}
            asking = asyncio.create_task(over_http2(server, config, "/completion", body, ("te", "trailers")))
            generation = await client.submitted()
            generation.push(started(generation.submit), delta(generation.submit, "one", 2))
            generation.fail(ServerFault("broken"))
            found = await asking
            assert headers_of(found, h2.events.TrailersReceived) == {RATE: "100.000000"}
            assert b'"broken"' in b"".join(event.data for event in found if isinstance(event, h2.events.DataReceived))

    asyncio.run(scene())


def test_http1_is_told_of_no_trailer(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(FakeTextClient(saying("one"))) as server:
            reply = await server.http.post(
                "/completion", json={"prompt": "a", "stream": True}, headers={"TE": "trailers"}
            )
            assert "trailer" not in reply.headers
            assert reply.text.endswith("}\n\n")

    asyncio.run(scene())
