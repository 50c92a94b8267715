"""Bytes to text, once for every token of every stream."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from llamabox.engine.text.detokenizer import Detokenizer
from llamabox.engine.text.stop_strings import StopStrings

TEXT = "The quick brown fox jumps over the lazy dog. Schöne Grüße, 世界 😀\n" * 40


@pytest.mark.parametrize("stop", [(), ("User:\n", "Assistant:\n", "</s>", "###")], ids=["plain", "stops"])
def test_a_thousand_tokens(benchmark: BenchmarkFixture, stop: tuple[str, ...]) -> None:
    data = TEXT.encode()[:4000]
    pieces = [data[i : i + 4] for i in range(0, len(data), 4)]

    def run() -> str:
        detokenizer = Detokenizer(StopStrings(stop))
        found = [detokenizer.push(token, piece) for token, piece in enumerate(pieces)]
        return "".join(piece.text for piece in found if piece) + detokenizer.flush().text

    assert benchmark.pedantic(run, rounds=10, warmup_rounds=1) == data.decode("utf-8", "replace")
