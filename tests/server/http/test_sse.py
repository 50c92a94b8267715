"""When a stream's first bytes go out: a prompt may take a minute, and gateways cut what says nothing for that long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest

from llamabox.engine.events import PrefillStart
from llamabox.errors import ContextExceeded, LlamaboxError, ServerFault, Unavailable
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.listening.config import ListenConfig
from tests.server.fake_client import FakeGeneration, FakeTextClient, delta, finished, started
from tests.server.harness import Running, running
from tests.server.listening.test_tls import certify, connect

ROUTES: dict[str, dict[str, Any]] = {
    "/completion": {"prompt": "a"},
    "/infill": {"input_prefix": "a", "input_suffix": "b"},
    "/v1/completions": {"prompt": "a"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
}

NEVER = 3600.0


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ListenConfig:
    return certify(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def asking(
    config: ListenConfig, *, http2: bool, ping_interval: float = NEVER
) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    model = ModelConfig(enable_infill=True, ping_interval=ping_interval)
    async with running(FakeTextClient(), config, model) as server, connect(server, config, http2=http2) as http:
        yield server, http


def starts(generation: FakeGeneration) -> PrefillStart:
    return PrefillStart(generation.submit.request_id, 0, 8, 0)


async def opened(http: httpx.AsyncClient, path: str, **fields: object) -> httpx.Response:
    """A stream as soon as its headers are there."""
    body = {**ROUTES[path], "stream": True, **fields}
    return await http.send(http.build_request("POST", path, json=body), stream=True)


def last_error(text: str) -> Any:
    return orjson.loads(text.split("data: ")[-1])["error"]


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("path", ROUTES)
def test_headers_and_a_comment_come_when_the_prompt_begins(config: ListenConfig, path: str, http2: bool) -> None:
    async def scene() -> None:
        async with asking(config, http2=http2) as (server, http):
            opening = asyncio.create_task(opened(http, path))
            generation = await server.client.submitted()
            assert (await http.get("/health")).status_code == 200
            assert not opening.done()
            generation.push(starts(generation))
            reply = await opening
            assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream")
            lines = reply.aiter_lines()
            assert await anext(lines) == ":"
            generation.push(started(generation.submit), delta(generation.submit, "one", 1))
            generation.push(finished(generation.submit, 1))
            assert any("one" in line for line in [line async for line in lines])

    asyncio.run(scene())


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [(ContextExceeded(n_prompt_tokens=9, n_ctx=8), 400), (Unavailable("the worker died"), 503)],
)
def test_errors_before_that_have_a_status_and_later_ones_are_events(
    config: ListenConfig, error: LlamaboxError, status: int, http2: bool
) -> None:
    async def scene() -> None:
        async with asking(config, http2=http2) as (server, http):
            opening = asyncio.create_task(opened(http, "/v1/completions"))
            (await server.client.submitted()).fail(error)
            reply = await opening
            assert reply.status_code == status
            assert orjson.loads(await reply.aread())["error"]["code"] == status
            opening = asyncio.create_task(opened(http, "/v1/completions"))
            generation = await server.client.submitted()
            generation.push(starts(generation))
            reply = await opening
            generation.fail(error)
            text = (await reply.aread()).decode()
            assert (reply.status_code, last_error(text)["code"]) == (200, status)
            assert "[DONE]" not in text

    asyncio.run(scene())


@pytest.mark.parametrize("http2", [False, True])
def test_one_that_waits_for_a_slot_has_its_headers_after_the_ping_interval(config: ListenConfig, http2: bool) -> None:
    async def scene() -> None:
        async with asking(config, http2=http2, ping_interval=0.05) as (server, http):
            opening = asyncio.create_task(opened(http, "/completion"))
            generation = await server.client.submitted()
            reply = await opening
            lines = reply.aiter_lines()
            for _ in range(3):
                assert await anext(lines) == ":"
                assert await anext(lines) == ""
            generation.fail(ServerFault("no room"))
            assert reply.status_code == 200
            assert [line for line in [line async for line in lines] if "no room" in line]

    asyncio.run(scene())


def test_without_pings_there_is_no_comment_and_the_queue_has_no_bound(config: ListenConfig) -> None:
    async def scene() -> None:
        async with asking(config, http2=False, ping_interval=0.05) as (server, http):
            opening = asyncio.create_task(opened(http, "/completion", sse_ping_interval=-1))
            generation = await server.client.submitted()
            pinged = await opened(http, "/completion")  # waited longer, and has its headers
            assert not opening.done()
            generation.push(starts(generation))
            reply = await opening
            generation.push(started(generation.submit), finished(generation.submit, 0))
            assert not [line async for line in reply.aiter_lines() if line.startswith(":")]
            await pinged.aclose()

    asyncio.run(scene())


@pytest.mark.parametrize("path", ROUTES)
def test_a_plain_reply_keeps_its_status_to_the_end(config: ListenConfig, path: str) -> None:
    async def scene() -> None:
        async with asking(config, http2=False, ping_interval=0.01) as (server, http):
            asked = asyncio.create_task(http.post(path, json=ROUTES[path]))
            generation = await server.client.submitted()
            generation.push(starts(generation))
            assert (await http.get("/health")).status_code == 200
            generation.fail(Unavailable("the worker died"))
            assert (await asked).status_code == 503

    asyncio.run(scene())
