"""What one token costs on its way out: from an event to the bytes of an SSE event, for each API."""

from __future__ import annotations

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
from llamabox.wire.text import Submit
from tests.server.fake_client import INFO, delta, started

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
