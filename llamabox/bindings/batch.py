"""The tokens of one llama_decode, in arrays that C reads in place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings.ffi import Native


class BatchRun(Protocol):
    """Tokens of one sequence at consecutive positions. The last `n_outputs` of them yield logits, or vectors."""

    @property
    def seq_id(self) -> int: ...

    @property
    def position(self) -> int: ...

    @property
    def tokens(self) -> Sequence[int]: ...

    @property
    def n_outputs(self) -> int: ...


@dataclass(slots=True)
class _Part:
    """Of a BatchRun."""

    seq_id: int
    position: int
    tokens: Sequence[int]
    n_outputs: int


class DecodeBatch(Protocol):
    """What one llama_decode computes: `c` points to a `struct llama_batch` of `n_tokens` rows."""

    c: Any

    @property
    def n_tokens(self) -> int: ...


class NativeBatch:
    """Room for `capacity` tokens, each of one sequence. Owned by one thread; used again for every step.

    `token`, `pos`, `seq_id` (int32) and `logits` (int8, non-zero: compute them) are writable views of shape [capacity]:
    a step may be filled by slices, then `n_tokens` set. The rows before `n_tokens` count.
    """

    def __init__(self, native: Native, capacity: int, n_hidden: int = 0) -> None:
        """With `n_hidden` each token has a hidden row of so many floats beside it, in `hidden` [capacity, n_hidden]."""
        self.capacity = capacity
        self.token: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.pos: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.seq_id: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.logits: NDArray[np.int8] = np.zeros(capacity, np.int8)
        self._n_seq_id = np.ones(capacity, np.int32)
        # llama_batch wants a pointer for each row to its sequence ids: here each points at its element of seq_id.
        addresses = self.seq_id.ctypes.data + 4 * np.arange(capacity, dtype=np.uintp)
        self._seq_id_pointers: NDArray[np.uintp] = addresses
        self.c: Any = native.ffi.new("struct llama_batch *")
        self.c.token = native.ffi.cast("llama_token *", self.token.ctypes.data)
        self.c.pos = native.ffi.cast("llama_pos *", self.pos.ctypes.data)
        self.c.n_seq_id = native.ffi.cast("int32_t *", self._n_seq_id.ctypes.data)
        self.c.seq_id = native.ffi.cast("llama_seq_id **", self._seq_id_pointers.ctypes.data)
        self.c.logits = native.ffi.cast("int8_t *", self.logits.ctypes.data)
        self.hidden: NDArray[np.float32] = np.zeros((capacity, n_hidden), np.float32)
        if n_hidden:
            self.c.embd = native.ffi.cast("float *", self.hidden.ctypes.data)

    @property
    def n_tokens(self) -> int:
        return int(self.c.n_tokens)

    @n_tokens.setter
    def n_tokens(self, count: int) -> None:
        assert 0 <= count <= self.capacity
        self.c.n_tokens = count

    def clear(self) -> None:
        self.c.n_tokens = 0

    def lay(self, runs: Iterable[BatchRun]) -> None:
        """Replace what is in the batch by `runs`, one behind the other."""
        tokens: list[int] = []
        positions: list[int] = []
        seq_ids: list[int] = []
        outputs: list[int] = []
        for run in runs:
            n_tokens = len(run.tokens)
            tokens += run.tokens
            positions += range(run.position, run.position + n_tokens)
            seq_ids += [run.seq_id] * n_tokens
            outputs += [0] * (n_tokens - run.n_outputs) + [1] * run.n_outputs
        n_rows = self.n_tokens = len(tokens)
        self.token[:n_rows] = tokens
        self.pos[:n_rows] = positions
        self.seq_id[:n_rows] = seq_ids
        self.logits[:n_rows] = outputs

    def lay_in_passes(self, runs: Sequence[BatchRun]) -> dict[int, int]:
        """As `lay`, but the first tokens of all runs in front of what longer ones have behind theirs.

        Returns where the last token of each run stands, by where `lay` would put it. At most that one has an output.

        libllama computes lone rows and the first rows of longer runs together where sequences have KV streams of their
        own, and then the rest. Outputs stand in the order in which they are computed. If the batch has another,
        libllama moves them before the first is read: 30 rows of logits for one long run in front of 30 lone rows.
        """
        firsts: list[BatchRun] = []
        rests: list[BatchRun] = []
        rows: dict[int, int] = {}
        n_before, n_rests = -1, len(runs) - 1
        for i, run in enumerate(runs):
            n_rest = len(run.tokens) - 1
            n_before += 1 + n_rest
            n_rests += n_rest
            rows[n_before] = n_rests if n_rest else i
            if n_rest:
                assert run.n_outputs <= 1
                firsts.append(_Part(run.seq_id, run.position, run.tokens[:1], 0))
                rests.append(_Part(run.seq_id, run.position + 1, run.tokens[1:], run.n_outputs))
            else:
                firsts.append(run)
        self.lay([*firsts, *rests])
        return rows

    def add(self, token: int, pos: int, seq_id: int, *, wants_logits: bool) -> int:
        """Append one token; returns its row."""
        row = self.n_tokens
        assert row < self.capacity
        self.token[row] = token
        self.pos[row] = pos
        self.seq_id[row] = seq_id
        self.logits[row] = wants_logits
        self.c.n_tokens = row + 1
        return row

    def extend(self, tokens: Sequence[int] | NDArray[np.int32], pos0: int, seq_id: int) -> range:
        """Append tokens at consecutive positions, without logits; returns their rows. Set `logits[row]` afterwards."""
        start = self.n_tokens
        stop = start + len(tokens)
        assert stop <= self.capacity
        self.token[start:stop] = tokens
        self.pos[start:stop] = np.arange(pos0, pos0 + len(tokens), dtype=np.int32)
        self.seq_id[start:stop] = seq_id
        self.logits[start:stop] = 0
        self.c.n_tokens = stop
        return range(start, stop)
