"""Batches in arrays that C reads in place."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.ffi import Native


@dataclass
class Run:
    seq_id: int
    position: int
    tokens: tuple[int, ...]
    n_outputs: int


runs = st.builds(
    lambda seq_id, position, tokens, n_outputs: Run(seq_id, position, tuple(tokens), min(n_outputs, len(tokens))),
    st.integers(0, 7),
    st.integers(0, 1000),
    st.lists(st.integers(0, 99), max_size=6),
    st.integers(0, 6),
)
CAPACITY = 32
batches = st.lists(runs, max_size=8).filter(lambda some: sum(len(run.tokens) for run in some) <= CAPACITY)


@settings(deadline=None)
@given(first=batches, second=batches)
def test_runs_are_laid_out_over_what_was_there(native: Native, first: list[Run], second: list[Run]) -> None:
    batch = NativeBatch(native, CAPACITY)
    batch.lay(first)
    batch.lay(second)
    expected = [
        (token, run.position + i, run.seq_id, i >= len(run.tokens) - run.n_outputs)
        for run in second
        for i, token in enumerate(run.tokens)
    ]
    c = batch.c
    found = [(c.token[row], c.pos[row], c.seq_id[row][0], bool(c.logits[row])) for row in range(c.n_tokens)]
    assert found == expected


streams = st.lists(st.integers(1, 5), min_size=1, max_size=7).map(
    lambda lengths: [
        Run(seq_id, 10 * seq_id, tuple(range(100 * seq_id, 100 * seq_id + length)), 1 - seq_id % 3 // 2)
        for seq_id, length in enumerate(lengths)
    ]
)


@settings(deadline=None)
@given(streams)
def test_what_longer_runs_have_behind_their_first_token_stands_behind_all_first_tokens(
    native: Native, runs: list[Run]
) -> None:
    batch = NativeBatch(native, 40)
    rows = batch.lay_in_passes(runs)
    c = batch.c
    found = [(c.token[row], c.pos[row], c.seq_id[row][0], bool(c.logits[row])) for row in range(c.n_tokens)]
    assert [token for token, *_ in found[: len(runs)]] == [run.tokens[0] for run in runs]
    for run in runs:
        expected = [
            (token, run.position + i, run.seq_id, i >= len(run.tokens) - run.n_outputs)
            for i, token in enumerate(run.tokens)
        ]
        assert [each for each in found if each[2] == run.seq_id] == expected, "a sequence's tokens keep their order"
    assert [found[row][0] for row in rows.values()] == [run.tokens[-1] for run in runs]
    batch.lay(runs)
    assert [c.token[row] for row in rows] == [run.tokens[-1] for run in runs]
