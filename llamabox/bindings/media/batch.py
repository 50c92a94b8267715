"""The rows of media chunks of one llama_decode. libllama takes them in batches without tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings.ffi import Native
from llamabox.bindings.media.chunk import ChunkRows

N_SECTIONS = 4
"""Positions of a row under M-RoPE."""


@dataclass(frozen=True, slots=True)
class MediaRun:
    """Rows [start, stop) of a chunk that begins at `position`, for a sequence. The last `n_outputs` yield logits."""

    seq_id: int
    position: int
    rows: ChunkRows
    start: int
    stop: int
    n_outputs: int

    def __len__(self) -> int:
        return self.stop - self.start


class MediaBatch:
    """What `Context.decode` takes, made anew for each decode. Belongs to one thread."""

    def __init__(self, native: Native, runs: Sequence[MediaRun]) -> None:
        counts = [len(run) for run in runs]
        self.n_tokens = sum(counts)
        self._embeddings = np.concatenate([run.rows.embeddings[run.start : run.stop] for run in runs], dtype=np.float32)
        self._positions = np.concatenate([_positions(run) for run in runs], axis=1, dtype=np.int32)
        if all(run.rows.positions is None for run in runs):  # not under M-RoPE
            self._positions = self._positions[0].copy()
        self._seq_ids = np.repeat(np.array([run.seq_id for run in runs], np.int32), counts)
        self._n_seq_id = np.ones(self.n_tokens, np.int32)
        addresses = self._seq_ids.ctypes.data + 4 * np.arange(self.n_tokens, dtype=np.uintp)
        self._seq_id_pointers: NDArray[np.uintp] = addresses
        self._logits = np.zeros(self.n_tokens, np.int8)
        for run, last in zip(runs, np.cumsum(counts), strict=True):
            self._logits[last - run.n_outputs : last] = 1
        ffi = native.ffi
        self.c: Any = ffi.new("struct llama_batch *")
        self.c.n_tokens = self.n_tokens
        self.c.embd = ffi.cast("float *", self._embeddings.ctypes.data)
        self.c.pos = ffi.cast("llama_pos *", self._positions.ctypes.data)
        self.c.n_seq_id = ffi.cast("int32_t *", self._n_seq_id.ctypes.data)
        self.c.seq_id = ffi.cast("llama_seq_id **", self._seq_id_pointers.ctypes.data)
        self.c.logits = ffi.cast("int8_t *", self._logits.ctypes.data)


def _positions(run: MediaRun) -> NDArray[np.int32]:
    """Of the run's rows in all sections, shape (4, rows)."""
    if run.rows.positions is not None:
        return run.rows.positions.at(run.position)[:, run.start : run.stop]
    steps = np.arange(run.position + run.start, run.position + run.stop, dtype=np.int32)
    return np.broadcast_to(steps, (N_SECTIONS, len(steps)))
