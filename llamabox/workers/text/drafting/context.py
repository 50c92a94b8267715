"""The context of a draft model."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context
from llamabox.engine.batch import Run
from llamabox.workers.text.drafting.seams import Guess


class LlamaDraftContext:
    """The DraftContext over a context with one pool of cells. Borrows it; used on its thread."""

    def __init__(self, context: Context, n_ctx: int, n_vocab: int) -> None:
        """`n_ctx`: the most cells of a sequence. `n_vocab`: guesses are tokens below this one."""
        assert context.kv_unified, "a part of a sequence is copied inside one pool only"
        self._context = context
        self._memory = context.memory
        self._batch = NativeBatch(context.native, context.n_batch)
        self._n_ctx = n_ctx
        self._n_guessed = min(n_vocab, context.n_vocab)

    @property
    def n_sequences(self) -> int:
        return self._context.n_seq_max

    @property
    def n_ctx(self) -> int:
        return self._n_ctx

    @property
    def n_batch(self) -> int:
        return self._context.n_batch

    @property
    def n_vocab(self) -> int:
        return self._context.n_vocab

    def compute(self, runs: Seq[Run]) -> list[Guess | None]:
        self._batch.lay(runs)
        self._context.decode(self._batch)
        ends = np.cumsum([len(run) for run in runs]).tolist()
        rows = [end - 1 for run, end in zip(runs, ends, strict=True) if run.n_outputs]
        if not rows:
            self._context.synchronize()  # what it takes belongs to this call
        return [best_guess(self._context.logits(row), self._n_guessed) for row in rows]

    def keep(self, seq_id: int, n_cells: int) -> None:
        done = self._memory.seq_rm(seq_id, n_cells, -1)
        assert done, "this memory gives cells back one by one"

    def share(self, source: int, target: int, n_cells: int) -> None:
        self._memory.seq_cp(source, target, 0, n_cells)

    def clear(self) -> None:
        self._memory.clear(data=True)


def best_guess(logits: NDArray[np.float32], n_guessed: int) -> Guess | None:
    """The likeliest token below `n_guessed`, with its probability among all; None for a row of NaN."""
    token = int(logits[:n_guessed].argmax())
    weights = np.exp(logits - logits[token])
    total = float(weights.sum())
    return Guess(token, 1.0 / total) if 0.0 < total < np.inf else None
