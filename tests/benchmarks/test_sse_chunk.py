"""What one token costs on its way out: the bytes of an SSE event, for each dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamabox.engine.request import GenerationParams
from llamabox.server.api.native.writer import PartialChunks
from llamabox.server.api.openai.writer import Chunks, Envelope
from llamabox.server.fields.request import Dialect, parse_options
from llamabox.server.hosted.config import ModelConfig
from llamabox.wire.text import Submit
from tests.server.fake_client import INFO, delta, started

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture


def test_chat_chunk(benchmark: BenchmarkFixture) -> None:
    options = parse_options({"stream": True}, ModelConfig(), GenerationParams(), INFO, Dialect.CHAT)
    chunks = Chunks(Envelope.new(Dialect.CHAT, options, INFO), options, 1)
    event = delta(Submit(request_id="1", prompt=["a"], params=options.params), " wörld", 1)
    assert b'"content":" w' in benchmark(chunks.text, 0, event)


def test_native_chunk(benchmark: BenchmarkFixture) -> None:
    options = parse_options({"stream": True}, ModelConfig(), GenerationParams(), INFO, Dialect.NATIVE)
    submit = Submit(request_id="1", prompt=["a"], params=options.params)
    chunks = PartialChunks(0, started(submit), options)
    assert b'"content":" w' in benchmark(chunks.chunk, delta(submit, " wörld", 1))
