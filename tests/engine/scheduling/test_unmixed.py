"""Where lone rows and runs do not mix: what a sequence's row is computed with does not depend on the others."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.request import Media, Segment
from llamabox.engine.scheduling.prompts import MOST_LEFT_OUT
from llamabox.engine.scheduling.work import Work
from llamabox.engine.sequence import Sequence
from tests.engine.driver import Driver, alone, request
from tests.engine.workbench import Workbench
from tests.fakes import FakeMemory, FakeRunner, ubatches

N_CHUNK = 16


@dataclass(frozen=True)
class Prompt:
    """The first `n_head` cells are those of all others; `n_tail` are its own. It comes with step `comes`."""

    n_head: int
    n_tail: int
    comes: int
    n_predict: int


prompts = st.builds(
    Prompt,
    n_head=st.integers(0, 12),
    n_tail=st.integers(1, 40),
    comes=st.integers(0, 12),
    n_predict=st.sampled_from([0, 1, 2, 9]),
)


def is_lone_by_cell(work: Work) -> dict[tuple[Sequence, int], bool]:
    """Of each cell that a step computes: is its row the only one of its sequence in its ubatch?"""
    found: dict[tuple[Sequence, int], bool] = {}
    begun = {share.sequence.slot.slot_id: count() for share in work.shares if share.sequence.slot}
    by_slot = {share.sequence.slot.slot_id: share for share in work.shares if share.sequence.slot}
    n_rows = {run.seq_id: len(run) for run in work.batch.runs}
    for ubatch in ubatches(work.batch, N_CHUNK):
        for slot_id, n in ubatch.items():
            share = by_slot[slot_id]
            start = share.stop - n_rows[slot_id]
            for _ in range(n):
                found[share.sequence, start + next(begun[slot_id])] = n == 1
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(prompts, min_size=1, max_size=6))
def test_no_row_of_a_prompt_is_computed_alone(script: list[Prompt]) -> None:
    bench = Workbench(n_chunk=N_CHUNK, mixes=False)
    coming = list(enumerate(sorted(script, key=lambda one: one.comes), start=1))
    while coming or not bench.scheduler.is_idle:
        while coming and coming[0][1].comes <= bench.n_steps:
            number, one = coming.pop(0)
            tokens = tuple(range(1000, 1000 + one.n_head)) + tuple(number * 100 + i for i in range(one.n_tail))
            bench.add(tokens, n_predict=one.n_predict)
        if bench.scheduler.is_idle:
            bench.n_steps += 1
            continue
        for (sequence, cell), is_lone in is_lone_by_cell(bench.step()).items():
            assert is_lone == (sequence.n_prompt == 1 or cell >= sequence.n_prompt)


def test_the_kinds_take_turns() -> None:
    bench = Workbench(mixes=False)
    for _ in range(2):
        bench.add_decoding()
    bench.add(tuple(range(100, 400)))
    kinds = []
    for _ in range(8):
        work = bench.step()
        assert not (work.n_decode and work.n_prefill)
        kinds.append("decode" if work.n_decode else "prefill")
    assert kinds == ["decode", "prefill"] * 4


def test_a_prompt_that_is_there_computes_two_cells_and_says_so() -> None:
    bench = Workbench(mixes=False)
    head = tuple(range(100, 140))
    for tail, n_cached, n_computed in (((1, 2, 3), 0, 43), ((1, 2, 3), 41, 2), ((4, 5), 40, 2), ((9,), 39, 2)):
        sequence = bench.add(head + tail, n_predict=1)
        assert sum(bench.step().n_prefill for _ in range(2)) == n_computed
        assert bench.scheduler.is_idle
        assert sequence.n_cached == n_cached


def slots_by_batch(*long_prompt: Segment) -> list[set[int]]:
    """Slots of each batch while a long prompt is computed in slot 4, beside streams in slots 0 to 3, and in 6."""
    runner = FakeRunner(mixes=False, is_steady=True, memory=FakeMemory(unified=False))
    driver = Driver(runner, n_slots=8, n_ctx=256)
    for slot_id in (0, 1, 2, 3, 6):
        driver.submit(request(f"stream {slot_id}", (slot_id, 1), n_predict=200, id_slot=slot_id))
        driver.step()
    driver.submit(request("long", long_prompt, n_predict=1, id_slot=4))
    began = len(runner.batches)
    while not driver.transcripts["long", 0].started:
        driver.step()
    return [{run.seq_id for run in batch.runs} for batch in runner.batches[began:]]


def test_beside_media_streams_wait_for_one_other_pass_between_two_tokens() -> None:
    """Rows whose slots stand apart are another pass: they take turns with a picture's chunks, and nobody starves."""
    *batches, last = slots_by_batch(*range(10, 40), Media(b"cat", 60, 60), *range(40, 70))
    assert last == {0, 1, 2, 3, 4}, "the last cell of a prompt goes with what decodes"
    assert {frozenset(batch) for batch in batches} == {frozenset({0, 1, 2, 3}), frozenset({4}), frozenset({6})}
    for one, other in pairwise(batches):
        assert 0 in one or 0 in other
    for slot_id in (4, 6):
        turns = [i for i, batch in enumerate(batches) if slot_id in batch]
        assert all(later - turn <= 4 for turn, later in pairwise(turns))


def test_beside_texts_all_streams_have_a_token_at_a_time() -> None:
    assert {frozenset(batch) for batch in slots_by_batch(*range(10, 130))} == {
        frozenset({0, 1, 2, 3, 6}),
        frozenset({4}),
    }


STREAMS = range(4)
"""Slots of streams beside which prompts ride."""


def batches_beside(*coming: tuple[Segment, ...]) -> list[list[set[int]]]:
    """For each token of the streams: the slots of the batches for which they waited, while prompts that come at once
    are computed in the slots behind theirs. Each text is what it is alone.
    """
    runner = FakeRunner(mixes=False, is_steady=True, memory=FakeMemory(unified=False))
    driver = Driver(runner, n_slots=12, n_ctx=256)
    asked = [request(f"stream {i}", (i, 1), n_predict=200, id_slot=i) for i in STREAMS]
    for one in asked:
        driver.submit(one)
        driver.step()
    asked += [request(f"{i}", prompt, n_predict=2, id_slot=i) for i, prompt in enumerate(coming, start=len(STREAMS))]
    began = len(runner.batches)
    for one in asked[len(STREAMS) :]:
        driver.submit(one)
    while not all(driver.transcripts[one.request_id, 0].started for one in asked[len(STREAMS) :]):
        driver.step()
    batches = [{run.seq_id for run in batch.runs} for batch in runner.batches[began:]]
    driver.run()
    for one in asked:
        assert driver.transcripts[one.request_id, 0].tokens == alone(one, n_slots=12, n_ctx=256)[0].tokens
    gaps: list[list[set[int]]] = [[]]
    for batch in batches:
        gaps[-1].append(batch)
        if set(STREAMS) <= batch:
            gaps.append([])
    return gaps[:-1]


def test_cells_of_prompts_ride_with_streams_while_pictures_come() -> None:
    """Streams wait for rows of pictures, or for cells of prompts beside their own, but never for both."""
    gaps = batches_beside(*((*range(i, i + 20), Media(bytes([i]), 6, 6), *range(20, 40)) for i in range(8)))
    assert all(len(gap) <= 2 for gap in gaps)
    n_riding = sum(len(gap) == 1 and len(gap[0]) >= len(STREAMS) + 4 for gap in gaps)
    assert n_riding >= 2 * 18
    assert len(gaps) - n_riding <= 8 + 2, "there is a pass for each picture"


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12), st.integers(1, 30)), min_size=4, max_size=8))
def test_no_text_changes_beside_those_that_ride(prompts: list[tuple[int, int, int]]) -> None:
    """That is what `batches_beside` looks at."""
    media = [Media(bytes([i]), n_cells, n_cells) for i, (_, n_cells, _) in enumerate(prompts)]
    batches_beside(
        *((*range(i, i + n_head), media[i], *range(n_tail)) for i, (n_head, _, n_tail) in enumerate(prompts))
    )


@pytest.mark.parametrize("n_prompts", [1, 2])
def test_few_prompts_with_pictures_go_by_chunks(n_prompts: int) -> None:
    gaps = batches_beside(*((*range(50, 80), Media(bytes([i]), 6, 6), *range(20)) for i in range(n_prompts)))
    assert sum(len(gap) == 2 for gap in gaps) >= len(gaps) - 3


def test_texts_that_come_together_go_by_chunks() -> None:
    assert all(len(gap) == 2 for gap in batches_beside(*(tuple(range(50 + i, 90 + i)) for i in range(8)))[:-2])


def test_chunks_go_on_where_some_prompt_cannot_ride() -> None:
    """Slot 11 is apart from those beside the streams, which have cells for hundreds of steps."""
    rides = [(*range(100), Media(bytes([i]), 6, 6), *range(100 - i)) for i in range(6)]
    gaps = batches_beside(*rides, (7,), (*range(30, 230),))
    with_chunks = [i for i, gap in enumerate(gaps) if len(gap) == 2]
    assert len(with_chunks) < len(gaps) * 0.7
    assert all(later - one <= MOST_LEFT_OUT + 2 for one, later in pairwise(with_chunks))


def test_the_last_cell_of_a_prompt_with_media_goes_with_what_decodes() -> None:
    """Its row has logits, and streams would wait for these beside the chunk."""
    with_media = slots_by_batch(Media(b"cat", 6, 6), *range(10, 16))
    assert {4} in with_media
    assert with_media[-1] == {0, 1, 2, 3, 4}
    assert {frozenset(batch) for batch in slots_by_batch(*range(10, 16))} == {
        frozenset({0, 1, 2, 3, 6}),
        frozenset({4}),
    }
