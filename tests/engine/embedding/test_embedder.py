"""Whatever is embedded beside it, and however batches are cut: each passage gets its own vector, once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.engine.embedding.embedder import Embedder, compute
from llamabox.engine.embedding.passages import MAX_PASSED, Passage, Waiting
from llamabox.engine.embedding.rooms import PlainRoom
from llamabox.engine.events import Activity, Failed, Vector
from tests.fakes import FakePooler, digest, vector_of

N_CTX = 12


def passages(request_id: str, lengths: list[int], first: int = 0) -> list[Passage]:
    """Passages that all differ."""
    return [
        Passage(request_id, first + i, tuple(digest(sum(request_id.encode()), first + i, k) % 1000 for k in range(n)))
        for i, n in enumerate(lengths)
    ]


def embedder(pooler: FakePooler, *, n_ctx: int = N_CTX, n_rows: int = 16) -> Embedder:
    return Embedder(pooler, n_ctx=n_ctx, n_rows=n_rows, clock=iter(range(10**9)).__next__)


def run(one: Embedder) -> list[Vector | Failed]:
    made = []
    while not one.is_idle:
        made += one.step()
    return made


lengths = st.lists(st.integers(1, N_CTX), min_size=1, max_size=12)
n_sequences = st.integers(1, 5)
poolers = st.one_of(
    st.builds(FakePooler, st.integers(N_CTX, 20), n_sequences),
    st.builds(FakePooler, st.integers(64, 80), n_sequences, is_tiled=st.just(True)),
    st.builds(FakePooler, st.integers(1, 20), n_sequences, splits=st.just(True)),
)


@given(
    poolers,
    st.integers(1, 20),
    st.lists(lengths, min_size=1, max_size=5),
    st.lists(st.tuples(st.sampled_from(("more", "step", "quick", "abort")), st.integers(0, 4)), max_size=40),
)
def test_each_passage_gets_its_own_vector_once(
    pooler: FakePooler, n_rows: int, requests: list[list[int]], acts: list[tuple[str, int]]
) -> None:
    one = embedder(pooler, n_rows=n_rows)
    asked = {f"r{i}": passages(f"r{i}", each) for i, each in enumerate(requests)}
    waiting = {request_id: list(each) for request_id, each in asked.items()}
    aborted: dict[str, int] = {}
    made: list[Vector | Failed] = []
    for act, which in [*acts, *(("more", i) for i in range(5) for _ in range(12))]:
        request_id = f"r{which % len(requests)}"
        match act:
            case "more" if request_id not in aborted and waiting[request_id]:
                assert not one.submit([waiting[request_id].pop(0)], 1 + len(waiting[request_id]))
            case "step" | "quick":
                made += one.step(None if act == "step" else 0.5)
            case "abort" if request_id not in aborted:
                one.abort(request_id)
                aborted[request_id] = len(made)
    made += run(one)
    for request_id, each in asked.items():
        got = [vector for vector in made if vector.request_id == request_id]
        if request_id not in aborted:
            assert sorted(vector.index for vector in got) == list(range(len(each))), "each once"
        for vector in got:
            assert isinstance(vector, Vector)
            assert vector.data == vector_of(each[vector.index].tokens)
            assert vector.n_tokens == len(each[vector.index].tokens)
    for request_id, n_made in aborted.items():
        assert request_id not in {vector.request_id for vector in made[n_made:]}
    if not pooler.splits:
        assert all(sum(batch) <= min(n_rows, pooler.n_batch) or len(batch) == 1 for batch in pooler.batches)


def test_small_requests_share_a_batch() -> None:
    pooler = FakePooler(n_batch=16, n_sequences=8)
    one = embedder(pooler)
    for i in range(8):
        one.submit(passages(f"r{i}", [2]), 1)
    run(one)
    assert pooler.batches == [[2, 2, 2, 2], [2, 2, 2, 2]], "a batch is filled with others' to its half"


def test_a_big_request_fills_its_batches() -> None:
    pooler = FakePooler(n_batch=16, n_sequences=8)
    one = embedder(pooler)
    one.submit(passages("big", [4] * 12), 12)
    run(one)
    assert pooler.batches == [[4, 4, 4, 4]] * 3


@given(st.integers(1, 4), st.integers(0, 3))
def test_a_small_request_overtakes_a_big_one(n_small: int, n_steps: int) -> None:
    one = embedder(FakePooler(n_batch=16, n_sequences=8))
    one.submit(passages("big", [8] * 100), 10_000)
    for _ in range(n_steps):
        one.step()
    one.submit(passages("small", [4] * n_small), n_small)
    assert {vector.index for vector in one.step() if vector.request_id == "small"} == set(range(n_small))


def test_a_big_request_is_not_starved_by_small_ones() -> None:
    one = embedder(FakePooler(n_batch=16, n_sequences=8))
    one.submit(passages("big", [12]), 500)
    made: list[Vector | Failed] = []
    for i in range(3 * MAX_PASSED):
        one.submit(passages(f"r{i}", [9]), 1)
        made += one.step()
    assert "big" in {vector.request_id for vector in made}


@pytest.mark.parametrize(("length", "error", "numbers"), [(0, "InvalidRequest", ()), (13, "ContextExceeded", (13, 12))])
def test_what_cannot_be_embedded_fails_its_request_alone(length: int, error: str, numbers: tuple[int, ...]) -> None:
    one = embedder(FakePooler())
    one.submit(passages("good", [3, 3]), 2)
    failed = one.submit(passages("bad", [3, length, 3]), 3)
    assert [(each.request_id, each.index, each.error["error"]) for each in failed] == [("bad", 1, error)]
    assert "input 1" in failed[0].error["message"]
    assert all(str(number) in failed[0].error["message"] for number in numbers)
    assert [each.request_id for each in run(one)] == ["good", "good"]


def test_a_batch_that_breaks_fails_whoever_was_in_it_and_nobody_else() -> None:
    pooler = FakePooler(n_batch=16, n_sequences=8)
    one = embedder(pooler)
    for request_id in "abc":
        one.submit(passages(request_id, [8]), 1)
    pooler.fails = lambda batch: not pooler.batches
    first, pooler.fails = one.step(), lambda batch: False
    rest = run(one)
    assert [type(each) for each in first] == [Failed]
    assert [type(each) for each in rest] == [Vector, Vector]


def test_the_exact_limit_fits() -> None:
    pooler = FakePooler(n_batch=N_CTX)
    one = embedder(pooler)
    assert one.submit(passages("r", [N_CTX]), 1) == []
    assert [type(each) for each in run(one)] == [Vector]


def test_the_counts_are_on_top_of_the_engines() -> None:
    one = embedder(FakePooler(n_batch=16, n_sequences=8))
    one.submit(passages("a", [5, 6]), 2)
    one.submit(passages("b", [5]), 1)
    assert one.activity(Activity(n_waiting=1)).n_waiting == 3
    run(one)
    done = one.activity(Activity(n_decode=10, n_prompt=100, n_processing=4, n_resident=7))
    assert (done.n_decode, done.n_prompt, done.n_busy) == (11, 116, 3)
    assert (done.n_processing, done.n_waiting, done.n_resident) == (4, 0, 7)


def test_what_waits_is_forgotten_with_its_request() -> None:
    waiting = Waiting()
    waiting.add(passages("a", [3, 3]), 2)
    waiting.add(passages("b", [3]), 1)
    waiting.remove("a")
    taken: list[Any] = waiting.take(PlainRoom(100), 100, 100)
    assert [passage.request_id for passage, _ in taken] == ["b"]
    assert not len(waiting)
    assert not waiting.requests


@given(st.lists(lengths, min_size=1, max_size=4), st.lists(st.integers(0, 3), max_size=60), st.integers(0, 9))
def test_batches_that_others_compute_may_end_in_any_order(
    requests: list[list[int]], picks: list[int], n_before_abort: int
) -> None:
    poolers = [FakePooler(n_batch=16, n_sequences=5) for _ in range(2)]
    one = embedder(poolers[0])
    asked = {f"r{i}": passages(f"r{i}", each) for i, each in enumerate(requests)}
    for each in asked.values():
        one.submit(each, len(each))
    made: list[Vector | Failed] = []
    begun = []
    n_ended = 0
    draw = iter(picks)
    while not one.is_idle:
        job = one.begin()
        if job is not None:
            begun.append(job)
        if begun and (job is None or next(draw, 0) % 2):
            job = begun.pop(next(draw, 0) % len(begun))
            if n_ended == n_before_abort:
                one.abort("r0")
                made = [vector for vector in made if vector.request_id != "r0"]
            made += one.finish(job, compute(job, poolers[n_ended % 2]))
            n_ended += 1
    assert one.activity(Activity()).n_processing == 0
    for request_id, each in asked.items():
        got = {vector.index: vector for vector in made if vector.request_id == request_id}
        if request_id != "r0" or n_ended <= n_before_abort:
            assert sorted(got) == list(range(len(each)))
        else:
            assert not got
        for index, vector in got.items():
            assert isinstance(vector, Vector)
            assert vector.data == vector_of(each[index].tokens)
