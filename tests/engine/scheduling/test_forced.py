"""What grammars force beside streams that decode, where each sequence has a KV stream of its own."""

from __future__ import annotations

from llamabox.engine.sequence import Sequence
from tests.engine.workbench import Workbench


def streams(n: int, *, is_steady: bool = True) -> tuple[Workbench, list[Sequence]]:
    """So many that decode, in slots side by side."""
    bench = Workbench(n_slots=n, n_batch=512, n_chunk=512, mixes=False, is_steady=is_steady, unified=False)
    return bench, [bench.add_decoding((i + 1,)) for i in range(n)]


def test_where_rows_are_steady_what_is_forced_goes_beside_lone_rows() -> None:
    bench, sequences = streams(4)
    for sequence, n_forced in zip(sequences, (0, 7, 0, 10), strict=True):
        sequence.cells.extend(range(100, 100 + n_forced))
    work = bench.step()
    assert [len(run) for run in work.batch.runs] == [1, 8, 1, 11]
    assert (work.n_decode, work.n_forced) == (4, 17)


def test_where_rows_are_not_steady_a_run_goes_whole_and_by_itself() -> None:
    bench, (first, *_) = streams(4, is_steady=False)
    first.cells.extend(range(100, 103))
    batches = [bench.step().batch for _ in range(2)]
    assert sorted([len(run) for run in batch.runs] for batch in batches) == [[1, 1, 1], [4]]


def test_where_rows_are_steady_what_is_forced_does_not_wait_for_prompts() -> None:
    bench, (first, *_) = streams(3)
    bench.scheduler.remove(bench.scheduler.running[-1])
    first.cells.extend(range(100, 109))
    bench.add(tuple(range(200, 260)))
    lengths = [[len(run) for run in bench.step().batch.runs] for _ in range(2)]
    assert [10, 1] in lengths
    assert min(len(one) for one in lengths) == 1, "the prompt has a batch of its own"
