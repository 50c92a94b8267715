"""Requests bound their drafts and answers stay what they are; replies, counters and slots tell of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.server_process import ServerProcess

N_CTX = 256
SONG = "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.\n"

Serve = Callable[..., ServerProcess]


@pytest.fixture(scope="module")
def server(serve: Serve) -> ServerProcess:
    return serve("-c", str(2 * N_CTX), "-np", "2", "--metrics", "--spec-draft-n-max", "12", "--no-warmup")


@pytest.fixture(scope="module")
def off(serve: Serve) -> ServerProcess:
    return serve("-c", str(2 * N_CTX), "-np", "2", "--metrics", "--spec", "off", "--no-warmup")


def sing(server: ServerProcess, **fields: Any) -> dict[str, Any]:
    body = {"prompt": SONG * 3, "n_predict": 40, "temperature": 0, "ignore_eos": True, "return_tokens": True}
    reply: dict[str, Any] = server.ok("/completion", {**body, **fields})
    return reply


def counters(server: ServerProcess) -> dict[str, float]:
    """Of drafts, summed over their labels, once no slot is busy: a step is told after its answer may have been read."""
    deadline = time.monotonic() + 10
    while True:
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(server.http.get("/metrics").text):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0) + sample.value
        if not found["llamacpp:requests_processing"]:
            return found
        assert time.monotonic() < deadline, "slots stay busy"
        time.sleep(0.02)


def slots(server: ServerProcess) -> Any:
    return server.http.get("/slots").json()


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 0.2, "top_k": 5, "seed": 4242}])
def test_whatever_a_draft_may_be_the_answer_is_the_same(
    server: ServerProcess, off: ServerProcess, sampling: dict[str, Any]
) -> None:
    plain = sing(off, **sampling)
    bounds = [(0, 0), (1, 2), (1, 4), (4, 8), (4, 12), (8, 16)]
    made = [sing(server, **sampling, speculative={"n_min": low, "n_max": high}) for low, high in bounds]
    assert {tuple(one["tokens"]) for one in made} == {tuple(plain["tokens"])}
    drafted = [one["timings"].get("draft_n", 0) for one in made]
    assert drafted[0] == plain["timings"].get("draft_n", 0) == 0 < max(drafted)


def test_counters_are_the_sums_over_the_timings(server: ServerProcess) -> None:
    before = counters(server)
    with ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(lambda seed: sing(server, seed=seed, temperature=0.3), range(4)))
    after = counters(server)
    drafted, accepted = (
        sum(one["timings"].get(name, 0) for one in replies) for name in ("draft_n", "draft_n_accepted")
    )
    assert 0 < accepted <= drafted
    for name, expected in (
        ("llamacpp:tokens_drafted_total", drafted),
        ("llamacpp:spec_decode_num_draft_tokens_total", drafted),
        ("llamabox:draft_tokens_total", drafted),
        ("llamacpp:tokens_drafted_accepted_total", accepted),
        ("llamacpp:spec_decode_num_accepted_tokens_per_pos_total", accepted),
        ("llamabox:draft_tokens_accepted_at_total", accepted),
    ):
        assert after[name] - before.get(name, 0) == expected, name


def test_a_limit_a_grammar_and_the_contexts_end_are_where_they_are_without(
    server: ServerProcess, off: ServerProcess
) -> None:
    for fields in (
        {"n_predict": 64},
        {"prompt": SONG * 2, "grammar": 'root ::= "a"{5,5}', "n_predict": 6, "ignore_eos": False},
        {"prompt": "word " * 248, "n_predict": 32},
        {"prompt": SONG, "n_predict": N_CTX},
    ):
        with_drafts, without = sing(server, **fields), sing(off, **fields)
        for name in ("tokens", "stop_type", "truncated", "tokens_predicted"):
            assert with_drafts[name] == without[name], fields


def test_who_may_guess_is_shown(server: ServerProcess, off: ServerProcess) -> None:
    sing(server, n_predict=2, id_slot=0)
    sing(server, n_predict=2, id_slot=1, **{"speculative.n_max": 0})
    assert [slot["speculative"] for slot in slots(server)] == [True, False]
    assert [slot["speculative"] for slot in slots(off)] == [False, False]
    shown = [one.http.get("/props").json()["default_generation_settings"]["params"] for one in (server, off)]
    assert [one["speculative.types"] for one in shown] == ["text", "none"]
    assert [one["speculative.n_max"] for one in shown] == [12, 0]
