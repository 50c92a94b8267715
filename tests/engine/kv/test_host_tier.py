"""What slots give up comes back from host memory, and is what it was."""

from __future__ import annotations

import pytest

from tests.engine.driver import Driver, alone, request
from tests.fakes import FakeMemory, FakeRunner

N_CTX = 256
LONG = {name: tuple(range(start, start + 100)) for name, start in (("a", 1000), ("b", 2000), ("c", 3000))}


def driver(host_budget: int, **memory: object) -> Driver:
    pool = FakeMemory(n_cells=2 * N_CTX, **memory)  # type: ignore[arg-type]
    return Driver(FakeRunner(memory=pool), n_slots=2, n_ctx=N_CTX, host_budget=host_budget)


def cached(run: Driver, name: str, tokens: tuple[int, ...], **params: object) -> int:
    """Asks, checks the answer against the one that it gets alone, and returns how much of the prompt was cached."""
    one = request(name, prompt=tokens, n_predict=10, **params)
    run.submit(one)
    run.run()
    assert run.engine.check_integrity() == []
    got = run.transcripts[name, 0]
    assert got.tokens == alone(one, n_slots=2, n_ctx=N_CTX)[0].tokens
    assert got.started is not None
    return got.started.n_cached


@pytest.mark.parametrize("unified", [True, False])
def test_a_third_conversation_on_two_slots_is_not_forgotten(unified: bool) -> None:
    run = driver(1_000_000, unified=unified)
    for name, tokens in LONG.items():
        assert cached(run, name, tokens) == 0
    for turn in range(3):
        for name, tokens in LONG.items():
            longer = (*tokens, *range(turn + 1))
            assert cached(run, f"{name}{turn}", longer) >= 100


def test_without_room_in_host_memory_it_is_computed_again() -> None:
    for budget in (0, 1_000):
        run = driver(budget)
        for name, tokens in LONG.items():
            cached(run, name, tokens)
        assert cached(run, "again", LONG["a"]) == 0


def test_another_lora_set_does_not_get_it() -> None:
    run = driver(1_000_000)
    for name, tokens in LONG.items():
        cached(run, name, tokens, lora=((0, 1.0),))
    assert cached(run, "plain", LONG["a"]) == 0
    assert cached(run, "again", LONG["a"], lora=((0, 1.0),)) == 99


def test_what_others_hold_too_is_not_kept() -> None:
    """Two that differ in their last cells only: one state is enough, and none where a slot holds the rest."""
    run = driver(1_000_000)
    head = LONG["a"]
    cached(run, "1", (*head, 1))
    cached(run, "2", (*head, 2))
    cached(run, "b", LONG["b"])
    host = run.engine.cache._host
    assert len(host) == 0
    cached(run, "c", LONG["c"])
    assert len(host) == 1


def test_a_shifted_slot_is_not_kept() -> None:
    """Its cells are not what a fresh evaluation would make."""
    run = driver(1_000_000)
    one = request("long", prompt=LONG["a"], n_predict=300)
    run.submit(one)
    run.run()
    for name in "bc":
        cached(run, name, LONG[name])
    assert len(run.engine.cache._host) == 0
