"""More conversations than slots: what one slot has to give up comes back from host memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.server_process import ServerProcess

Serve = Callable[..., ServerProcess]

STORIES = [" ".join(f"{name} has {n} apples and {n + 1} pears." for n in range(12)) for name in ("Ada", "Bob", "Cleo")]


@pytest.fixture(scope="module")
def model(tiny_text: Path) -> Path:
    """It is all one what it says."""
    return tiny_text


def complete(server: ServerProcess, prompt: str) -> tuple[int, str]:
    reply = server.ok("/completion", {"prompt": prompt, "n_predict": 8, "temperature": 0, "return_tokens": True})
    assert reply["timings"]["cache_n"] + reply["timings"]["prompt_n"] == reply["tokens_evaluated"]
    return reply["timings"]["cache_n"], reply["content"]


@pytest.mark.parametrize("words", [(), ("--kv-unified",)])
def test_more_conversations_than_slots(serve: Serve, words: tuple[str, ...]) -> None:
    server = serve("-np", "1", "-c", "1024", *words)
    texts = []
    for story in STORIES:
        assert complete(server, story)[0] < 8
        # The last token evaluated alone gives other low bits than the whole prompt at once, wherever the rest is from.
        texts.append(complete(server, story)[1])
    for _ in range(2):
        for story, text in zip(STORIES, texts, strict=True):
            n_cached, again = complete(server, story)
            assert n_cached >= 100
            assert again == text
    assert "KV ledger" not in server.log


def test_without_it_they_are_computed_again(serve: Serve) -> None:
    server = serve("-np", "1", "-c", "1024", "--cache-ram", "0")
    for story in (*STORIES, *STORIES):
        assert complete(server, story)[0] < 8
