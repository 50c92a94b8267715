"""Where texts end: at the wall of the context or beyond it, at tokens that a request names, and never too early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.server_process import ServerProcess

N_CTX = 256
PROMPT = "I believe the meaning of life is"
COUNTING = "one two three one two three one two three one two"
CHAT = [{"role": "user", "content": "Answer with one word: is water wet?"}]


@pytest.fixture(scope="module")
def shifting(serve: Callable[..., ServerProcess]) -> ServerProcess:
    return serve("-c", str(2 * N_CTX), "-np", "2")


@pytest.fixture(scope="module")
def pooled(serve: Callable[..., ServerProcess]) -> ServerProcess:
    """Two texts of 300 tokens that have 100 in common leave no room in the pool."""
    return serve("-c", str(2 * N_CTX), "-np", "4", "--kv-unified", "--kv-unified-per-slot", "304")


@pytest.fixture(scope="module")
def walled(serve: Callable[..., ServerProcess]) -> ServerProcess:
    return serve("-c", str(2 * N_CTX), "-np", "2", "--no-context-shift")


def prompt_of(server: ServerProcess, n_tokens: int) -> list[int]:
    tokens = server.ok("/tokenize", {"content": "one two three four five six seven eight nine ten " * 40})["tokens"]
    assert len(tokens) >= n_tokens
    return list(tokens[:n_tokens])


def complete(server: ServerProcess, prompt: Any, n_predict: int, **fields: Any) -> Any:
    body = {"prompt": prompt, "n_predict": n_predict, "temperature": 0, "ignore_eos": True, **fields}
    return server.ok("/completion", body)


def test_a_generation_twice_as_long_as_the_context_completes(shifting: ServerProcess) -> None:
    answer = complete(shifting, PROMPT, 2 * N_CTX)
    assert answer["tokens_predicted"] == 2 * N_CTX
    assert answer["truncated"] is True
    assert answer["stop_type"] == "limit"


def test_without_shift_the_same_request_ends_exactly_at_the_wall(walled: ServerProcess) -> None:
    answer = complete(walled, PROMPT, 2 * N_CTX)
    assert answer["tokens_evaluated"] + answer["tokens_predicted"] == N_CTX
    assert answer["truncated"] is True
    assert answer["stop_type"] == "limit"
    chat = walled.ok(
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2 * N_CTX, "ignore_eos": True},
    )
    assert chat["choices"][0]["finish_reason"] == "length"
    assert chat["usage"]["total_tokens"] == N_CTX


def test_without_shift_a_short_request_is_untouched(walled: ServerProcess) -> None:
    answer = complete(walled, PROMPT, 64)
    assert (answer["tokens_predicted"], answer["truncated"]) == (64, False)


@pytest.mark.parametrize("n_prompt", [N_CTX, N_CTX + 1])
def test_a_prompt_of_the_contexts_size_or_more_is_refused_with_both_numbers(
    shifting: ServerProcess, walled: ServerProcess, n_prompt: int
) -> None:
    for server in (shifting, walled):
        for stream in (False, True):
            response = server.post("/completion", {"prompt": prompt_of(server, n_prompt), "stream": stream})
            error = response.json()["error"]
            assert response.status_code == 400
            assert error["type"] == "exceed_context_size_error"
            assert (error["n_prompt_tokens"], error["n_ctx"]) == (n_prompt, N_CTX)


def test_a_prompt_one_under_the_context_is_answered(shifting: ServerProcess, walled: ServerProcess) -> None:
    wall = complete(walled, prompt_of(walled, N_CTX - 1), 10)
    assert (wall["tokens_predicted"], wall["truncated"]) == (1, True)
    shift = complete(shifting, prompt_of(shifting, N_CTX - 1), 10)
    assert (shift["tokens_predicted"], shift["truncated"]) == (10, True)


def test_shifts_of_neighbours_that_share_their_prompt_do_not_disturb_each_other(shifting: ServerProcess) -> None:
    prompt = prompt_of(shifting, 200)
    alone = complete(shifting, prompt, 150, return_tokens=True, cache_prompt=False)["tokens"]
    both = complete(shifting, prompt, 150, return_tokens=True, n=2)
    assert [choice["truncated"] for choice in both] == [True, True]
    assert both[0]["tokens"][:56] == alone[:56]
    shifting.wait_idle()
    assert "KV ledger" not in shifting.log


def test_shifts_of_shared_cells_where_a_pool_is_full_end_no_text(pooled: ServerProcess) -> None:
    prompt = prompt_of(pooled, 100)
    choices = complete(pooled, prompt, 225, n=3, n_keep=20, n_discard=20)
    assert [(one["truncated"], one["tokens_predicted"]) for one in choices] == [(True, 225)] * 3
    pooled.wait_idle()
    assert "KV ledger" not in pooled.log


def ended(walled: ServerProcess, **fields: Any) -> Any:
    body = {"prompt": COUNTING, "n_predict": 40, "temperature": 0, "return_tokens": True, **fields}
    return walled.ok("/completion", body)


@pytest.mark.parametrize("drafts", [{}, {"speculative.n_max": 0}])
@pytest.mark.parametrize("ignore_eos", [False, True])
def test_a_text_ends_before_the_first_stop_token(
    walled: ServerProcess, drafts: dict[str, int], ignore_eos: bool
) -> None:
    fields = {**drafts, "ignore_eos": ignore_eos}
    whole = ended(walled, **fields)
    token = whole["tokens"][9]
    n = whole["tokens"].index(token) + 1
    got = ended(walled, stop_token_ids=[token], **fields)
    assert got["tokens"] == whole["tokens"][:n]
    assert (got["stop_type"], got["tokens_predicted"]) == ("word", n)
    assert got["content"] + got["stopping_word"] == ended(walled, **{**fields, "n_predict": n})["content"]
    later = ended(walled, stop_token_ids=[token], min_tokens=n, **fields)
    assert token not in later["tokens"][:n]
    assert later["tokens"][: n - 1] == whole["tokens"][: n - 1]
    assert len(later["tokens"]) > n


def test_no_end_comes_before_min_tokens(walled: ServerProcess) -> None:
    """In chats, of each of several choices."""
    body = {"messages": CHAT, "temperature": 0, "max_tokens": 100, "seed": 1}
    usual = walled.ok("/v1/chat/completions", body)["usage"]["completion_tokens"]
    assert usual < 60
    body |= {"min_tokens": usual + 20, "n": 2}
    reply = walled.ok("/v1/chat/completions", body)
    assert reply["usage"]["completion_tokens"] > 2 * (usual + 20)
    refused = walled.post("/v1/chat/completions", {**body, "min_tokens": 101})
    assert refused.status_code == 400
    assert "min_tokens" in refused.json()["error"]["message"]


def test_a_grammar_says_when_a_text_may_end(walled: ServerProcess) -> None:
    letters = ended(walled, grammar='root ::= "a" [a-z ]*', min_tokens=12)
    assert letters["tokens_predicted"] > 12
    assert ended(walled, grammar='root ::= "yes"', min_tokens=12)["content"] == "yes"
