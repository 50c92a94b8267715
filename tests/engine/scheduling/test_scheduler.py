"""What a step carries: every decoding row, then prompts in chunks, nobody passed over for long."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.batch import Batch
from llamabox.engine.scheduling.overtaking import MAX_OVERTAKEN
from llamabox.engine.scheduling.pacing import MIN_CHUNK, Pacing
from llamabox.engine.scheduling.work import Work
from llamabox.engine.sequence import Sequence
from tests.engine.workbench import Workbench
from tests.fakes import check_runs, rows_of


def prompt(n_tokens: int, *, first: int = 1) -> tuple[int, ...]:
    """Tokens that share no prefix with a prompt of another `first`."""
    return (first, *([2] * (n_tokens - 1)))


def n_rows(work: Work, sequence: Sequence) -> int:
    assert sequence.slot is not None
    return sum(len(run) for run in work.batch.runs if run.seq_id == sequence.slot.slot_id)


def outputs(batch: Batch) -> list[int]:
    """The rows that yield logits."""
    return [row for row, (run, i) in enumerate(rows_of(batch)) if i >= len(run) - run.n_outputs]


def chunk_of_20() -> Pacing:
    pacing = Pacing(factor=3.0)
    pacing.observe(n_decode=1, n_prefill=0, seconds=0.1)
    pacing.observe(n_decode=0, n_prefill=100, seconds=1.0)
    assert pacing.chunk(1) == 20
    return pacing


def test_an_empty_scheduler_plans_an_empty_step() -> None:
    work = Workbench().step()
    assert len(work.batch) == 0
    assert work.shares == []


def test_every_decoding_row_rides_in_every_step_beside_a_long_prompt() -> None:
    bench = Workbench(n_slots=4)
    decoding = [bench.add_decoding((first,)) for first in (10, 11, 12)]
    long = bench.add(prompt(300), n_predict=1)
    while not long.n_generated:
        said = [sequence.n_generated for sequence in decoding]
        work = bench.step()
        assert [n_rows(work, sequence) for sequence in decoding] == [1, 1, 1]
        assert [sequence.n_generated for sequence in decoding] == [n + 1 for n in said]
        assert work.n_decode == 3
        assert work.n_prefill > 0


def test_a_decoding_row_yields_a_token_each_step_and_a_prompt_only_at_its_end() -> None:
    bench = Workbench(n_chunk=4)
    decoding = bench.add_decoding()
    asked = bench.add(prompt(10, first=5), n_predict=1)
    while not asked.n_generated:
        work = bench.step()
        wanted = {id(share.sequence): bool(share.rows) for share in work.shares}
        assert wanted[id(decoding)]
        assert wanted[id(asked)] == bool(asked.n_generated)
        assert outputs(work.batch) == [row for share in work.shares for row in share.rows]


def test_without_decoding_rows_a_prompt_comes_in_full_chunks() -> None:
    bench = Workbench(n_batch=64, n_chunk=32)
    bench.add(prompt(100), n_predict=1)
    assert [len(bench.step().batch) for _ in range(5)] == [32, 32, 32, 4, 0]


def test_beside_decoding_rows_a_long_prompt_comes_in_measured_chunks() -> None:
    bench = Workbench(n_batch=64, n_chunk=32, pacing=chunk_of_20())
    bench.add_decoding((7,))
    bench.add(prompt(130), n_predict=1)
    assert [bench.step().n_prefill for _ in range(7)] == [20, 20, 20, 20, 20, 20, 10]


def test_short_prompts_together_do_not_exceed_one_chunk() -> None:
    bench = Workbench(n_slots=5, n_batch=64, n_chunk=32, pacing=chunk_of_20())
    bench.add_decoding((7,))
    for first in (10, 11, 12):
        bench.add(prompt(15, first=first), n_predict=1)
    assert [bench.step().n_prefill for _ in range(2)] == [32, 13]


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(st.integers(1, 90), min_size=1, max_size=8),
    n_batch=st.integers(5, 40),
    n_chunk=st.integers(1, 64),
    n_predict=st.integers(1, 5),
    cont_batching=st.booleans(),
)
def test_no_step_exceeds_its_bounds_and_rows_come_in_the_order_of_their_slots(
    prompts: list[int], n_batch: int, n_chunk: int, n_predict: int, cont_batching: bool
) -> None:
    bench = Workbench(n_slots=5, n_batch=n_batch, n_chunk=n_chunk, cont_batching=cont_batching)
    for first, n_tokens in enumerate(prompts, 10):
        bench.add(prompt(n_tokens, first=first), n_predict=n_predict)
    while not bench.scheduler.is_idle:
        work = bench.step()
        batch = work.batch
        assert 0 < len(batch) <= n_batch
        assert work.n_prefill <= (n_batch if work.n_decode else n_chunk)
        check_runs(batch)
        seq_ids = [run.seq_id for run in batch.runs]
        assert seq_ids == sorted(set(seq_ids))
        assert bench.cache.check_integrity() == []
        if not cont_batching and work.n_decode:
            assert work.n_prefill == 0


def test_without_continuous_batching_a_prompt_waits_until_nobody_decodes() -> None:
    bench = Workbench(cont_batching=False)
    decoding = bench.add((7,), n_predict=4)
    bench.step()
    waiting = bench.add(prompt(20), n_predict=1)
    for _ in range(3):
        work = bench.step()
        assert (n_rows(work, decoding), n_rows(work, waiting)) == (1, 0)
    assert n_rows(bench.step(), waiting) == 20


def test_the_shortest_remaining_prompt_is_served_first() -> None:
    bench = Workbench(n_chunk=32)
    long = bench.add(prompt(200), n_predict=1)
    short = bench.add(prompt(32, first=5), n_predict=1)
    work = bench.step()
    assert (n_rows(work, short), n_rows(work, long)) == (32, 0)
    assert n_rows(bench.step(), long) == 32


@pytest.mark.parametrize("n_short", [32, 31, 20, 8])
@pytest.mark.parametrize("has_decoders", [False, True])
def test_a_long_prompt_is_overtaken_only_so_often(n_short: int, has_decoders: bool) -> None:
    bench = Workbench(n_slots=4, n_batch=64, n_chunk=32)
    if has_decoders:
        bench.add_decoding((3,))
    long = bench.add(prompt(400), n_predict=1)
    bench.step()
    fair = MIN_CHUNK if has_decoders else 32  # what it would get without the others
    n_overtaken = 0
    while long.n_pending > 64:
        # A stream of short prompts that never breaks off.
        if not bench.scheduler.n_waiting:
            bench.add(prompt(n_short, first=100 + bench.n_arrived), n_predict=1)
        n_overtaken += n_rows(bench.step(), long) < fair // 2
        assert n_overtaken <= MAX_OVERTAKEN


def test_a_prompt_that_was_overtaken_long_enough_leaves_room_for_others_beside_it() -> None:
    bench = Workbench(n_slots=4, n_batch=64, n_chunk=32, pacing=chunk_of_20())
    bench.add_decoding((3,))
    long = bench.add(prompt(400), n_predict=1)
    long.n_overtaken = MAX_OVERTAKEN
    short = bench.add(prompt(12, first=5), n_predict=1)
    work = bench.step()
    assert (n_rows(work, long), n_rows(work, short)) == (20, 12)


def test_nothing_is_counted_while_nobody_who_came_later_is_served() -> None:
    bench = Workbench(n_chunk=8)
    first = bench.add(prompt(40), n_predict=1)
    second = bench.add(prompt(100, first=5), n_predict=1)
    while not first.n_generated:
        bench.step()
    assert second.n_overtaken == 0


def test_a_sequence_taken_out_leaves_its_slot_at_once_and_its_cells_for_others() -> None:
    bench = Workbench(n_slots=1)
    gone = bench.add(prompt(100), n_predict=1)
    waiting = bench.add(prompt(100), n_predict=1)
    bench.step()
    bench.scheduler.remove(gone)
    bench.step()
    assert waiting.n_cached == 32
    bench.scheduler.remove(waiting, forget=True)
    assert bench.scheduler.is_idle
    assert bench.memory.cells == []
