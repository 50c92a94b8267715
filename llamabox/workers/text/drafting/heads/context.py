"""The context of a model's heads."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np

from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context
from llamabox.workers.text.drafting.context import best_guess
from llamabox.workers.text.drafting.heads.seams import NextPair, Pairs, Rows


class LlamaHeadsContext:
    """The HeadsContext over a context for heads and that of their model. Borrows both; used on their thread."""

    def __init__(self, context: Context, target: Context) -> None:
        assert context.kv_unified, "sequences draft in one pass"
        assert target.model is context.model, "the heads are the model's own"
        self._context = context
        self._target = target
        self._memory = context.memory
        self._n_hidden = context.model.n_embd_out
        self._batch = NativeBatch(context.native, context.n_batch, self._n_hidden)
        context.keep_hidden(True, only_outputs=True)

    @property
    def n_batch(self) -> int:
        return self._context.n_batch

    @property
    def n_hidden(self) -> int:
        return self._n_hidden

    def keep_rows(self, on: bool) -> None:
        self._target.keep_hidden(on, only_outputs=False)

    def rows(self, n_rows: int) -> Rows:
        return self._target.hidden_rows(n_rows)

    def compute(self, parts: Seq[Pairs]) -> list[NextPair | None]:
        assert len({part.wants for part in parts}) == 1
        self._batch.lay(parts)
        ends = np.cumsum([len(part) for part in parts]).tolist()
        for part, end in zip(parts, ends, strict=True):
            self._batch.hidden[end - len(part) : end] = part.rows
        self._context.decode(self._batch)
        if not parts[0].wants:
            self._context.synchronize()  # what it takes belongs to this call
            return []
        return [self._next(end - 1) for end in ends]

    def keep(self, seq_id: int, position: int) -> None:
        done = self._memory.seq_rm(seq_id, position, -1)
        assert done, "this memory gives cells back one by one"

    def copy(self, source: int, target: int) -> None:
        self._memory.seq_cp(source, target, -1, -1)

    def clear(self) -> None:
        self._memory.clear(data=True)

    def _next(self, row: int) -> NextPair | None:
        guess = best_guess(self._context.logits(row), self._context.n_vocab)
        return None if guess is None else NextPair(guess, self._context.hidden_row(row).copy())
