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
