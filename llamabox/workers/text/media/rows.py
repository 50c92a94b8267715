"""A batch of media rows, computed by a context."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from contextlib import nullcontext

from llamabox.bindings.context import Context
from llamabox.bindings.media.batch import MediaBatch, MediaRun
from llamabox.bindings.media.chunk import ChunkRows
from llamabox.engine.batch import Batch, MediaRows, Run
from llamabox.engine.request import Media

RowsOf = Callable[[Media], ChunkRows]
"""The encoded rows of a chunk that a batch has rows of."""


def has_media(batch: Batch) -> bool:
    """Whether the batch is of media rows, and so has nothing else."""
    return isinstance(batch.runs[0].content, MediaRows)


def decode_media(context: Context, runs: Seq[Run], rows_of: RowsOf) -> None:
    """Compute runs of media rows. One of a chunk that is not causal comes alone, and whole. Raises a DecodeError."""
    is_causal, native_runs = True, []
    for run in runs:
        content = run.content
        assert isinstance(content, MediaRows), "libllama computes tokens and media one after the other"
        if not content.media.is_causal:
            is_causal = False
            assert len(runs) == 1
            assert len(content) == content.media.n_cells <= context.n_ubatch
        rows = rows_of(content.media)
        assert len(rows.embeddings) == content.media.n_cells
        native_runs.append(MediaRun(run.seq_id, run.position, rows, content.start, content.stop, run.n_outputs))
    batch = MediaBatch(context.native, native_runs)
    with nullcontext() if is_causal else context.both_ways():
        context.decode(batch)
