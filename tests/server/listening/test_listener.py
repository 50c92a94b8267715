"""On the connection: who goes away is forgotten at once, who stops reading is dropped, who sends too much is told."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from llamabox.errors import ClientTooSlow, ServerFault, Unavailable
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.listening.config import ListenConfig
from tests.server.fake_client import INFO, FakeTextClient, delta, finished, saying, started
from tests.server.harness import events, running

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}

GENERATING: list[tuple[str, dict[str, Any]]] = [
    (path, {**body, "stream": stream})
    for path, body in (
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", {"prompt": "a"}),
        ("/completion", {"prompt": "a"}),
    )
    for stream in (False, True)
]


async def gone(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(("path", "body"), GENERATING)
def test_a_client_that_leaves_before_the_first_event_frees_its_slot(path: str, body: dict[str, Any]) -> None:
    async def scene() -> None:
        async with running(FakeTextClient()) as server:
            _, writer = await server.post_raw(path, body)
            generation = await server.client.submitted()
            await gone(writer)
            await generation.aborted.wait()
            assert generation.n_aborts == 1
            await server.app.state.site.lifecycle.drained()

    asyncio.run(scene())


@pytest.mark.parametrize(("path", "body"), GENERATING)
def test_a_client_that_leaves_amid_the_reply_frees_its_slot(path: str, body: dict[str, Any]) -> None:
    async def scene() -> None:
        async with running(FakeTextClient()) as server:
            reader, writer = await server.post_raw(path, body)
            generation = await server.client.submitted()
            generation.push(started(generation.submit), delta(generation.submit, "one", 1))
            if body["stream"]:
                await reader.readuntil(b"one")
            await gone(writer)
            await generation.aborted.wait()
            await server.app.state.site.lifecycle.drained()

    asyncio.run(scene())


def test_a_client_that_leaves_aborts_all_its_prompts_and_nobody_elses() -> None:
    async def scene() -> None:
        async with running(FakeTextClient()) as server:
            other_reader, other_writer = await server.post_raw("/completion", {"prompt": "x", "stream": True})
            other = await server.client.submitted()
            _, writer = await server.post_raw("/completion", {"prompt": ["a", "b", "c"], "stream": True})
            mine = [await server.client.submitted() for _ in range(3)]
            await gone(writer)
            for generation in mine:
                await generation.aborted.wait()
            other.push(started(other.submit), delta(other.submit, "still here", 1))
            await other_reader.readuntil(b"still here")
            assert other.n_aborts == 0
            other.push(finished(other.submit, 1))
            await other_reader.readuntil(b'"stop":true')
            await gone(other_writer)

    asyncio.run(scene())


def test_a_client_that_leaves_amid_its_body_is_forgotten() -> None:
    async def scene() -> None:
        async with running(FakeTextClient()) as server:
            _, writer = await server.connect()
            writer.write(b"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            await writer.drain()
            await gone(writer)
            assert (await server.http.get("/health")).status_code == 200
            await server.app.state.site.lifecycle.drained()
            assert server.client.submits == []

    asyncio.run(scene())


def test_a_reply_that_ended_well_is_not_aborted() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(saying("a", "b"))) as server:
            for _, body in GENERATING:
                await server.http.post("/completion", json={"prompt": "a", "stream": body["stream"]})
            assert [generation.n_aborts for generation in server.client.generations] == [0] * len(GENERATING)

    asyncio.run(scene())


def test_headers_wait_for_the_first_event_and_later_errors_are_events() -> None:
    async def scene(path: str) -> None:
        async with running(FakeTextClient()) as server:
            reader, writer = await server.post_raw(path, {"prompt": "a", "stream": True})
            generation = await server.client.submitted()
            reading = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
            assert (await server.http.get("/health")).status_code == 200
            assert not reading.done()
            generation.push(started(generation.submit), delta(generation.submit, "one", 1))
            assert b"200" in (await reading).split(b"\r\n")[0]
            generation.fail(Unavailable("the worker died"))
            rest = await reader.readuntil(b"0\r\n\r\n")
            last = rest.split(b"data: ")[-1].split(b"\n\n")[0]
            assert orjson.loads(last)["error"] == {
                "code": 503, "message": "the worker died", "type": "unavailable_error",
            }  # fmt: skip
            assert b"[DONE]" not in rest
            await gone(writer)

    asyncio.run(scene("/completion"))
    asyncio.run(scene("/v1/completions"))


def lines_of_cut_off(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of clients that were too slow."""
    return [line for line in caplog.messages if "cut_off=the client is too slow: " in line]


def test_a_client_that_stops_reading_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "llamabox")

    async def scene() -> None:
        config = ListenConfig(stall_timeout=0.2)
        async with running(FakeTextClient(), config) as server:
            _, writer = await server.post_raw("/completion", {"prompt": "a", "stream": True})
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            generation = await server.client.submitted()
            generation.push(started(generation.submit))
            big = "x" * (1 << 20)
            for n in range(1, 33):
                generation.push(delta(generation.submit, big, n))
            await generation.aborted.wait()
            await server.app.state.site.lifecycle.drained()
            assert (await server.http.get("/health")).status_code == 200
            writer.transport.abort()

    asyncio.run(scene())
    (line,) = lines_of_cut_off(caplog)
    assert " POST /completion 200 " in line
    assert line.endswith(" for 0.2 s")


@pytest.mark.parametrize("reads_again", [True, False])
def test_a_client_whose_events_pile_up_is_dropped_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture, reads_again: bool
) -> None:
    """Once, also where its socket is found stuck afterwards."""
    caplog.set_level("INFO", "llamabox")

    async def scene() -> None:
        async with running(FakeTextClient(), ListenConfig(stall_timeout=0.2)) as server:
            reader, writer = await server.post_raw("/completion", {"prompt": "a", "stream": True})
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            generation = await server.client.submitted()
            generation.push(started(generation.submit))
            for n in range(1, 33):
                generation.push(delta(generation.submit, "x" * (1 << 20 if not reads_again else 1), n))
            generation.fail(ClientTooSlow("the client is too slow: 17 events were waiting for it"))
            if reads_again:
                writer.transport.resume_reading()  # type: ignore[attr-defined]
                assert b"17 events" in await reader.readuntil(b"0\r\n\r\n")
            await server.app.state.site.lifecycle.drained()
            writer.transport.abort()

    asyncio.run(scene())
    (line,) = lines_of_cut_off(caplog)
    assert " POST /completion 200 " in line
    if reads_again:
        assert line.endswith(": 17 events were waiting for it")


def test_a_silent_stream_is_pinged_unless_the_client_refuses() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(), ModelConfig(ping_interval=0.05)) as server:
            reader, writer = await server.post_raw("/completion", {"prompt": "a", "stream": True})
            quiet_reader, quiet_writer = await server.post_raw(
                "/completion", {"prompt": "a", "stream": True, "sse_ping_interval": -1}
            )
            generations = [await server.client.submitted() for _ in range(2)]
            for generation in generations:
                generation.push(started(generation.submit), delta(generation.submit, "one", 1))
            for _ in range(3):
                await reader.readuntil(b"\r\n:\n\n\r\n")
            for generation in generations:
                generation.push(finished(generation.submit, 1))
            assert b"\n:\n\n" not in await quiet_reader.readuntil(b"0\r\n\r\n")
            await reader.readuntil(b"0\r\n\r\n")
            await gone(writer)
            await gone(quiet_writer)

    asyncio.run(scene())


def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(), ListenConfig(max_body=1000)) as server:
            reply = await server.http.post("/completion", content=b"x" * 1001)
            assert reply.status_code == 413
            assert "1000 bytes" in reply.json()["detail"]
            assert reply.headers["connection"] == "close"
            reader, writer = await server.connect()
            writer.write(b"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
            assert b"413" in await reader.readline()
            await gone(writer)
            assert (await server.http.post("/completion", content=b"x" * 1000)).status_code == 400

    asyncio.run(scene())


def test_a_chunked_body_over_the_limit_is_refused_on_the_way() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(), ListenConfig(max_body=100_000)) as server:
            reader, writer = await server.connect()
            writer.write(b"POST /completion HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(4):
                writer.write(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
            await writer.drain()
            assert b"413" in await reader.readline()
            await gone(writer)

    asyncio.run(scene())


def test_a_body_that_stops_arriving_is_not_waited_for_for_ever() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(), ListenConfig(stall_timeout=0.05)) as server:
            reader, writer = await server.connect()
            writer.write(b"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
            assert b"400" in await reader.readline()
            await gone(writer)

    asyncio.run(scene())


def test_a_body_that_never_ends_is_not_waited_for_for_ever() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(), ListenConfig(timeout=0.2)) as server:
            reader, writer = await server.connect()
            writer.write(b"POST /completion HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            answer = asyncio.create_task(reader.readline())
            while not answer.done():
                writer.write(b"1\r\n{\r\n")
                await asyncio.wait((answer,), timeout=0.01)
            assert b"400" in answer.result()
            await gone(writer)

    asyncio.run(scene())


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_cannot_fit_never_reaches_the_worker(stream: bool) -> None:
    async def scene() -> None:
        async with running(FakeTextClient()) as server:
            too_long = "\n" * (INFO.n_ctx * INFO.longest_piece + 1)
            for path, body in (
                ("/completion", {"prompt": "\n" * 5_000_000}),
                ("/completion", {"prompt": too_long}),
                ("/completion", {"prompt": [5] * (INFO.n_ctx + 1)}),
                ("/v1/completions", {"prompt": ["fits", too_long]}),
                ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a" * len(too_long)}]}),
            ):
                reply = await server.http.post(path, json={**body, "stream": stream})
                error = reply.json()["error"]
                assert (reply.status_code, error["type"]) == (400, "exceed_context_size_error")
                assert error["n_prompt_tokens"] > error["n_ctx"] == INFO.n_ctx
            assert server.client.submits == []

    asyncio.run(scene())


def test_requests_with_one_id_are_two_requests_to_the_engine() -> None:
    async def scene() -> None:
        async with running(FakeTextClient()) as server:
            headers = {"X-Request-ID": "same"}
            asking = [
                asyncio.create_task(server.http.post("/completion", json={"prompt": "a"}, headers=headers))
                for _ in range(2)
            ]
            generations = [await server.client.submitted() for _ in range(2)]
            assert len({generation.submit.request_id for generation in generations}) == 2
            for n, generation in enumerate(generations):
                generation.push(started(generation.submit), delta(generation.submit, str(n), 1))
                generation.push(finished(generation.submit, 1))
            replies = [await one for one in asking]
            assert {reply.json()["content"] for reply in replies} == {"0", "1"}
            assert {reply.headers["x-request-id"] for reply in replies} == {"same"}

    asyncio.run(scene())


def test_an_error_in_one_of_several_prompts_ends_the_request_and_aborts_the_others() -> None:
    async def scene() -> None:
        async with running(FakeTextClient()) as server:
            asking = asyncio.create_task(server.http.post("/completion", json={"prompt": ["a", "b"]}))
            first, second = [await server.client.submitted() for _ in range(2)]
            first.push(started(first.submit), delta(first.submit, "x", 1))
            second.fail(ServerFault("broke"))
            await first.aborted.wait()
            assert (await asking).status_code == 500

    asyncio.run(scene())


def test_pipelined_requests_are_answered_in_order() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(saying("a"))) as server:
            reader, writer = await server.connect()
            one = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
            writer.write(one + one)
            for _ in range(2):
                assert b"200" in await reader.readline()
                await reader.readuntil(b'{"status":"ok"}')
            await gone(writer)

    asyncio.run(scene())


def test_events_of_a_step_go_out_whole() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(saying("a", "b"))) as server:
            reply = await server.http.post("/completion", json={"prompt": ["x", "y"], "n": 2, "stream": True})
            assert len(events(reply.text)) == 4 * 3

    asyncio.run(scene())
