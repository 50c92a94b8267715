"""A prompt that begins like an earlier one is not computed twice, and answers as if it had been."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.server_process import ServerProcess
from tests.e2e.shapes import LAST_OF_PROMPT

HEAD = "You are a careful librarian who answers in one short sentence. " * 40
TAILS = ["What is a book?", "What is a map made of?"]


@pytest.fixture(scope="module")
def server(serve: Callable[..., ServerProcess]) -> ServerProcess:
    return serve("-c", "4096", "-np", "2")


def complete(server: ServerProcess, tail: str, **fields: Any) -> dict[str, Any]:
    body = {"prompt": HEAD + tail, "max_tokens": 16, "temperature": 0, **fields}
    return dict(server.ok("/v1/completions", body))


def cached(answer: dict[str, Any]) -> int:
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


def shared_tokens(server: ServerProcess) -> int:
    first, second = (server.ok("/tokenize", {"content": HEAD + tail})["tokens"] for tail in TAILS)
    return next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)


def test_a_shared_beginning_is_reported_and_the_answer_is_as_uncached(server: ServerProcess) -> None:
    fresh = complete(server, TAILS[1], cache_prompt=False)
    assert cached(fresh) == 0
    n_shared = shared_tokens(server)
    assert n_shared >= 400
    complete(server, TAILS[0], id_slot=0)
    for slot in (0, 1):  # the same slot, then a copy into another one
        again = complete(server, TAILS[1], id_slot=slot)
        assert cached(again) >= n_shared
        assert again["choices"][0]["text"] == fresh["choices"][0]["text"]


def test_another_slot_gets_the_prefix_while_the_first_is_still_generating(server: ServerProcess) -> None:
    head = "A second and quite different beginning that nobody has used before. " * 40
    fresh = server.ok(
        "/v1/completions", {"prompt": head + "End.", "max_tokens": 8, "temperature": 0, "cache_prompt": False}
    )
    stream = server.stream("/completion", {"prompt": head + "Go.", "n_predict": 200, "ignore_eos": True, "id_slot": 0})
    next(stream)
    again = server.ok("/v1/completions", {"prompt": head + "End.", "max_tokens": 8, "temperature": 0})
    assert server.busy_slots() == 1
    assert cached(again) >= 400
    assert again["choices"][0]["text"] == fresh["choices"][0]["text"]
    assert len(list(stream)) == 200  # its other tokens and the final event
    server.wait_idle()


def test_the_same_prompt_again_computes_no_more_than_its_end(server: ServerProcess) -> None:
    body = {"prompt": "One two three four five six", "n_predict": 4, "id_slot": 0}
    first = server.ok("/completion", body)
    second = server.ok("/completion", body)
    assert second["timings"]["prompt_n"] in LAST_OF_PROMPT
    assert second["timings"]["cache_n"] == first["tokens_evaluated"] - second["timings"]["prompt_n"]


@pytest.mark.parametrize(("similarity", "slot"), [("0.5", 0), ("1", 0), ("0", 1)])
def test_how_similar_a_slot_must_be_to_be_preferred_to_an_older_one(
    serve: Callable[..., ServerProcess], similarity: str, slot: int
) -> None:
    server = serve("-c", "1024", "-np", "2", "-sps", similarity)
    text = "One morning a heron stood in the shallow water and waited for a fish that did not come."
    for prompt, id_slot in (("Something else.", 1), (text, 0)):
        server.ok("/completion", {"prompt": prompt, "n_predict": 1, "id_slot": id_slot})
    reply = server.ok("/completion", {"prompt": text + " Then it", "n_predict": 1})
    assert reply["id_slot"] == slot
    assert reply["timings"]["cache_n"] > 10
