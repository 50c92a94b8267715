"""The context that makes vectors, and the engine's Pooler over it."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context, Pooling
from llamabox.engine.batch import Batch
from llamabox.workers.text.media.rows import RowsOf, decode_media, has_media


class LlamaPooler:
    """The engine's Pooler over a context with embeddings, on that context's thread. Does not own the context."""

    def __init__(self, context: Context, *, is_tiled: bool = False, rows_of: RowsOf | None = None) -> None:
        """Without `rows_of` it takes no media; with it `can_take_media` must hold of the context."""
        self._context = context
        self._rows_of = rows_of
        self._batch = NativeBatch(context.native, context.n_batch)
        model = context.model
        self._pooling = context.pooling
        self.n_floats = model.n_cls_out if self._pooling is Pooling.RANK else model.n_embd_out
        self.is_tiled = is_tiled
        self.filler = model.vocab.pad or 0
        self.splits = can_split(context)

    @property
    def n_batch(self) -> int:
        return self._context.n_batch

    @property
    def n_sequences(self) -> int:
        return self._context.n_seq_max - 1  # the last one is the filling

    def execute(self, batch: Batch) -> None:
        if has_media(batch):
            assert self._rows_of is not None, "this pooler takes no media"
            decode_media(self._context, batch.runs, self._rows_of)
            return
        self._batch.lay(batch.runs)
        self._context.decode(self._batch)

    def adopt(self, n_threads: int) -> None:
        """Make the calling thread the context's owner, and let it compute with so many threads."""
        self._context.adopt()
        self._context.set_n_threads(n_threads, n_threads)

    def vector(self, seq_id: int, rows: range) -> bytes:
        if self._pooling is Pooling.NONE:
            return b"".join(self._context.row_vector(row, self.n_floats) for row in rows)
        return self._context.pooled(seq_id, self.n_floats)

    def joined(self, parts: Seq[tuple[int, bytes]]) -> bytes:
        match self._pooling:
            case Pooling.NONE:
                return b"".join(vector for _, vector in parts)
            case Pooling.MEAN:
                counts = np.array([n_rows for n_rows, _ in parts], np.float64)
                means = np.stack([np.frombuffer(vector, np.float32) for _, vector in parts])
                mean: NDArray[np.float64] = counts @ means / counts.sum()
                return mean.astype(np.float32).tobytes()
            case Pooling.CLS:
                return parts[0][1]
        return parts[-1][1]

    def forget(self) -> None:
        self._context.memory.clear()


def can_split(context: Context) -> bool:
    """A causal model's last token has the same vector however the tokens before it were cut."""
    pooling = context.pooling
    return context.memory.exists and context.model.is_causal and pooling in (Pooling.LAST, Pooling.RANK)


def can_take_media(context: Context) -> bool:
    """Whether passages may have media.

    libllama computes words and media in batches of their own, so that words can only see what came before them; and a
    reranker's layout of a question and a document is of texts.
    """
    return context.memory.exists and context.model.is_causal and context.pooling is not Pooling.RANK
