"""What one token costs on its way out: from an event to the bytes of an SSE event, for each API, and to the client."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from llamabox.chat.parts import Text
from llamabox.engine.events import Delta
from llamabox.engine.request import GenerationParams
from llamabox.server.api.native.fields import native_options
from llamabox.server.api.native.writer import NativeWriter
from llamabox.server.api.openai.chat.fields import chat_options
from llamabox.server.api.openai.chat.writer import ChatWriter
from llamabox.server.generation.choice import Choice
from llamabox.server.generation.writer import Writer
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.listening.binding import bind_sockets
from llamabox.server.listening.config import ListenConfig
from llamabox.server.listening.listener import Listener
from llamabox.wire.text import Submit
from tests.server.fake_client import INFO, FakeGeneration, FakeTextClient, delta, started
from tests.server.harness import hang_up, text_app

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

CHOICE = Choice(0)
REPLY: Any = SimpleNamespace(choices=[CHOICE])
"""What writers look at of a reply that goes on."""


def written(writer: Writer, event: Delta) -> bytes:
    """As TextReply has it written."""
    parts = (Text(event.text),) if event.text else ()
    return writer.parts(CHOICE, parts, event)


def test_chat_chunk(benchmark: BenchmarkFixture) -> None:
    options = chat_options({"stream": True}, ModelConfig(), GenerationParams(), INFO)
    event = delta(Submit(request_id="1", prompt=["a"], params=options.params), " wörld", 1)
    assert b'"content":" w' in benchmark(written, ChatWriter(options, REPLY, INFO), event)


def test_native_chunk(benchmark: BenchmarkFixture) -> None:
    options = native_options({"stream": True}, ModelConfig(), GenerationParams(), INFO)
    submit = Submit(request_id="1", prompt=["a"], params=options.params)
    writer = NativeWriter(options, REPLY, [])
    writer.started(CHOICE, started(submit))
    assert b'"content":" w' in benchmark(written, writer, delta(submit, " wörld", 1))


Stream = tuple[FakeGeneration, asyncio.StreamReader, asyncio.StreamWriter]


async def opened(port: int, client: FakeTextClient) -> Stream:
    """A stream that has said its first word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b'{"prompt":"a","stream":true}'
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    generation = await client.submitted()
    generation.push(started(generation.submit), delta(generation.submit, " one", 1))
    await reader.readuntil(b" one")
    return generation, reader, writer


def test_a_step_of_eight_streams(benchmark: BenchmarkFixture) -> None:
    """From the events to the clients, which read on the same event loop."""
    client, sockets = FakeTextClient(), bind_sockets(["127.0.0.1"], 0)
    app = text_app(client)
    listener = Listener(app, ListenConfig(), sockets)
    with asyncio.Runner() as runner:
        runner.run(listener.start())
        port = sockets[0].getsockname()[1]
        streams = [runner.run(opened(port, client)) for _ in range(8)]

        async def step() -> set[bytes]:
            for generation, _, _ in streams:
                generation.push(delta(generation.submit, " wörld", 2))
            return {(await reader.readuntil("wörld".encode()))[-6:] for _, reader, _ in streams}

        async def end() -> None:
            for _, _, writer in streams:
                await hang_up(writer)
            await listener.close(grace=1.0)
            await app.state.site.hosted.close()

        said = benchmark.pedantic(lambda: runner.run(step()), rounds=200, warmup_rounds=10)
        assert said == {"wörld".encode()}
        runner.run(end())
