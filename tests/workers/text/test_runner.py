"""Batches of a real model, with libllama's own order of their rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llamabox.bindings import ffi
from llamabox.demo import ensure_demo_model
from llamabox.engine.batch import Batch, Run
from llamabox.engine.request import SamplingParams
from llamabox.engine.seams import Ask
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.loading.loader import TextModel
from llamabox.workers.text.runner import LlamaRunner

N_SLOTS = 6

Row = tuple[list[list[int]], tuple[float, list[tuple[int, float]]], list[float]]
"""What is sampled of a row, the likeliest tokens there, and the probabilities that a sampler leaves."""


@pytest.fixture(scope="module")
def model() -> Iterator[TextModel]:
    model_file = str(ensure_demo_model(progress=False))
    config = TextConfig(
        model=model_file, n_ctx=768, n_parallel=N_SLOTS, n_batch=64, n_ubatch=64, n_threads=1, n_threads_batch=1
    )
    with TextModel.load(ffi.load(), config, lambda _: None) as loaded:
        yield loaded


def batch_of(runs: list[Run]) -> Batch:
    batch = Batch()
    for run in runs:
        batch.add(run)
    return batch


def rows_of(runner: LlamaRunner, batches: list[list[Run]]) -> dict[int, Row]:
    """What comes of the last row of each run of the last batch, by slot."""
    runner.memory.clear()
    for runs in batches:
        runner.execute(batch_of(runs))
        runner.wait()
    found: dict[int, Row] = {}
    n_before = 0
    for run in batches[-1]:
        n_before += len(run)
        if not run.n_outputs:
            continue
        row = n_before - 1
        sampling = SamplingParams(temperature=0.7, seed=run.seq_id)
        sampler = runner.sampler_source(sampling, (), 128).start(run.seq_id)
        left = runner.distribution(row, sampler, None)
        probabilities = [p for _, p in left.top(5)]
        tokens = runner.sample([Ask(range(row, row + 1), sampler)])
        found[run.seq_id] = tokens, runner.logprobs(row, tokens[0][0], 5), probabilities
        sampler.close()
    return found


class InOrder(LlamaRunner):
    """One whose rows stand in libllama's batch as in the engine's."""

    def _lay(self, batch: Batch) -> None:
        self._batch.lay(batch.runs)


@pytest.mark.parametrize(
    "lengths",
    [
        (1, 1, 7, 1, 1, 1),
        (9, 1, 1, 3, 1, 1),
        (1, 5, 4, 1, 1, 6),
        (1, 1, 1, 1, 1, 2),
        (3, 4, 3, 5, 3, 3),
        (0, 2, 0, 1, 1, 0),
    ],
)
def test_rows_are_to_the_bit_what_they_are_in_the_order_of_the_slots(
    model: TextModel, lengths: tuple[int, ...]
) -> None:
    """Without drafts; in the last case some slots are free. Of the fourth slot's run nothing may be wanted."""
    words = model.model.vocab.tokenize(
        "It was the best of times, it was the worst of times", add_special=False, parse_special=False
    )
    beginnings = [Run(slot, 0, words[slot : slot + 4], 1) for slot in range(N_SLOTS)]
    runs = [
        Run(slot, 4, words[2 : 2 + length], int(slot != 3 or length == 1))
        for slot, length in enumerate(lengths)
        if length
    ]
    kinds = [kind(model.contexts.main, mixes=False, is_steady=True) for kind in (LlamaRunner, InOrder)]
    found, expected = (rows_of(runner, [beginnings, runs]) for runner in kinds)
    assert found == expected
    assert len(found) == sum(run.n_outputs for run in runs)
    assert len({str(row) for row in found.values()}) == len(found), "rows that cannot be told apart"
