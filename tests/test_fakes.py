"""The fakes punish what libllama would punish, or the engine's tests over them say nothing."""

from __future__ import annotations

import pytest

from llamabox.engine.batch import Batch, MediaRows, Run
from llamabox.engine.request import Media
from tests.fakes import FakeRunner

CAUSAL = Media(b"causal", 4, 2)
WHOLE = Media(b"whole", 4, 4, is_causal=False)


def executed(runner: FakeRunner, *runs: Run) -> None:
    batch = Batch()
    for run in runs:
        batch.add(run)
    runner.execute(batch)


def after(*runs: Run) -> FakeRunner:
    """A runner that has computed these runs, one after the other."""
    runner = FakeRunner(n_batch=16, n_ubatch=8)
    for run in runs:
        executed(runner, run)
    return runner


def rows(media: Media, start: int = 0, stop: int | None = None) -> MediaRows:
    return MediaRows(media, start, media.n_cells if stop is None else stop)


def test_media_rows_stand_where_the_chunk_begins_and_text_goes_on_behind_its_positions() -> None:
    runner = after(Run(0, 0, [1, 2], 0), Run(0, 2, rows(CAUSAL, 0, 3), 0), Run(0, 2, rows(CAUSAL, 3), 0))
    executed(runner, Run(0, 4, [3], 1))
    assert [cell.position for cell in runner.memory.of(0)] == [0, 1, 2, 2, 2, 2, 4]
    executed(runner, Run(0, 5, rows(WHOLE), 0))
    executed(runner, Run(0, 9, [3], 1))
    assert runner.memory.seq_pos_max(0) == 9


@pytest.mark.parametrize(
    ("before", "runs", "complaint"),
    [
        ([], [Run(0, 1, rows(CAUSAL), 0)], "position 1 where 0 comes next"),
        ([Run(0, 0, rows(CAUSAL), 0)], [Run(0, 4, [1], 0)], "position 4 where 2 comes next"),
        ([Run(0, 0, rows(CAUSAL, 0, 2), 0)], [Run(0, 2, rows(CAUSAL, 2), 0)], "position 2 where 0 comes next"),
        ([Run(0, 0, rows(CAUSAL, 0, 2), 0)], [Run(0, 0, [1], 0)], "a media chunk was cut"),
        ([Run(0, 0, rows(CAUSAL, 0, 2), 0)], [Run(0, 0, rows(CAUSAL), 0)], "a media chunk was cut"),
        ([], [Run(0, 0, rows(CAUSAL, 1), 0)], "a media chunk was cut"),
        ([], [Run(0, 0, rows(WHOLE, 0, 2), 0)], "a chunk is cut"),
        ([], [Run(0, 0, rows(WHOLE), 0), Run(1, 0, rows(CAUSAL), 0)], "company"),
        ([], [Run(0, 0, rows(CAUSAL), 0), Run(1, 0, [1], 0)], "tokens beside media"),
        ([], [Run(0, 0, rows(Media(b"large", 9, 9, is_causal=False)), 0)], "libllama ends the process"),
    ],
)
def test_media_that_are_computed_otherwise_are_punished(before: list[Run], runs: list[Run], complaint: str) -> None:
    runner = after(*before)
    with pytest.raises(AssertionError, match=complaint):
        executed(runner, *runs)
