"""return_progress with a real model: one event for each batch of the prompt, and one before them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.server_process import ServerProcess
from tests.e2e.shapes import LAST_OF_PROMPT

pytestmark = pytest.mark.model

Serve = Callable[..., ServerProcess]

ROUTES: dict[str, dict[str, Any]] = {
    "/completion": {"prompt": "The quick brown fox jumps over the lazy dog. " * 18, "n_predict": 4},
    "/v1/completions": {"prompt": "A slow green turtle crawls under the busy bee. " * 18, "max_tokens": 4},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "This is a test. " * 40}], "max_tokens": 4},
}


@pytest.fixture(scope="module")
def model(tiny_text: Path) -> Path:
    """It is all one what it says."""
    return tiny_text


@pytest.mark.parametrize("path", ROUTES)
def test_from_what_was_cached_to_the_whole_prompt(serve: Serve, path: str) -> None:
    server = serve("-np", "1", "-c", "512", "-b", "64")
    for is_cached in (False, True):
        body = {**ROUTES[path], "return_progress": True, "timings_per_token": True, "cache_prompt": is_cached}
        chunks = list(server.stream(path, body))
        told = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
        total = told[0]["total"]
        assert told[0]["processed"] == told[0]["cache"]
        if is_cached:
            assert total - told[0]["cache"] in LAST_OF_PROMPT
        else:
            assert told[0]["cache"] == 0
        assert told[-1]["processed"] == total
        assert {(one["total"], one["cache"]) for one in told} == {(total, told[0]["cache"])}
        assert all(earlier["processed"] < later["processed"] for earlier, later in pairwise(told))
        assert len(told) == 1 + (1 if is_cached else ceil(total / 64))
        timings = [chunk["timings"] for chunk in chunks if "prompt_progress" in chunk]
        assert (timings[0]["prompt_n"], timings[0]["prompt_ms"], timings[0]["predicted_n"]) == (0, 0.0, 0)
        assert all(earlier["prompt_ms"] <= later["prompt_ms"] for earlier, later in pairwise(timings))
        assert timings[-1]["prompt_ms"] > 0
        assert total > 128


def test_several_sequences_share_one_prompt(serve: Serve) -> None:
    server = serve("-np", "3", "-c", "1536", "-b", "64")
    body = {**ROUTES["/completion"], "n": 3, "return_progress": True}
    chunks = list(server.stream("/completion", body))
    assert {chunk["index"] for chunk in chunks if "prompt_progress" in chunk} == {0}
    assert {chunk["index"] for chunk in chunks} == {0, 1, 2}
