"""A context's KV memory (or recurrent state)."""

from __future__ import annotations

from typing import Any

import numpy as np

from llamabox.bindings.ffi import Native


class Memory:
    """Borrowed from a Context: valid as long as that is open, and only on its thread.

    Positions are half-open ranges [p0, p1); p1 = -1 means to the end. Sequence ids are 0 … n_seq_max - 1.
    """

    def __init__(self, native: Native, context: Any, n_seq_max: int) -> None:
        self._native = native
        self._lib = native.lib
        self._context = context
        self._handle = native.lib.llama_get_memory(context)
        self.n_seq_max = n_seq_max

    def _seq(self, seq_id: int) -> int:
        """libllama aborts the process on an id out of range."""
        assert 0 <= seq_id < self.n_seq_max, f"sequence {seq_id} of {self.n_seq_max}"
        return seq_id

    @property
    def exists(self) -> bool:
        """False for a context whose model keeps nothing of what it computed: an encoder's. It can generate no text."""
        return bool(self._handle != self._native.ffi.NULL)

    @property
    def can_shift(self) -> bool:
        return bool(self._lib.llama_memory_can_shift(self._handle))

    def clear(self, *, data: bool = False) -> None:
        """Forget all sequences. Without `data` what was computed for them stays until it is overwritten."""
        self._lib.llama_memory_clear(self._handle, data)

    def seq_rm(self, seq_id: int, p0: int, p1: int = -1) -> bool:
        """Remove positions. False, and nothing removed, where the memory cannot remove part of a sequence."""
        return bool(self._lib.llama_memory_seq_rm(self._handle, self._seq(seq_id), p0, p1))

    def seq_cp(self, source: int, target: int, p0: int = 0, p1: int = -1) -> None:
        """Make positions of `source` belong to `target` too. Separate KV streams can copy whole sequences only."""
        self._lib.llama_memory_seq_cp(self._handle, self._seq(source), self._seq(target), p0, p1)

    def seq_add(self, seq_id: int, p0: int, p1: int, delta: int) -> None:
        """Move positions by delta. Only where can_shift."""
        self._lib.llama_memory_seq_add(self._handle, self._seq(seq_id), p0, p1, delta)

    def seq_pos_min(self, seq_id: int) -> int:
        """The lowest position that is there; -1 for an empty sequence. Above 0 with sliding-window attention."""
        return int(self._lib.llama_memory_seq_pos_min(self._handle, self._seq(seq_id)))

    def seq_pos_max(self, seq_id: int) -> int:
        """The highest position that is there; -1 for an empty sequence."""
        return int(self._lib.llama_memory_seq_pos_max(self._handle, self._seq(seq_id)))

    def state_size(self, seq_id: int, *, part: bool = False) -> int:
        """Bytes of a sequence's state, or of the part of it that cannot be cut."""
        return int(self._lib.llama_state_seq_get_size_ext(self._context, self._seq(seq_id), self._flags(part)))

    def state_get(self, seq_id: int, into: memoryview | None = None, *, part: bool = False) -> memoryview:
        """A sequence's state, to be restored by state_set in a context of the same model and settings.

        It stands at the beginning of `into`, which must be large enough, or else in memory of its own.

        With `part` only what cannot be cut: recurrent states, and the cells of layers with a sliding window.

        It is written once, into memory that numpy asks large pages for. Measured for 33 MiB where pages are dear:
        30 ms, against 300 for a cleared buffer that is copied to bytes.
        """
        buffer = np.empty(self.state_size(seq_id, part=part), np.uint8).data if into is None else into
        data = self._native.ffi.from_buffer("uint8_t[]", buffer)
        flags = self._flags(part)
        n_bytes = int(self._lib.llama_state_seq_get_data_ext(self._context, data, len(buffer), seq_id, flags))
        return buffer[:n_bytes]

    def state_set(self, seq_id: int, state: bytes | memoryview, *, part: bool = False) -> bool:
        """Restore a state, replacing what the sequence has. False, and an empty sequence, when it does not fit.

        With `part` it replaces that part alone, and where it does not fit, that part alone is empty.

        The bytes must be whole and from state_get: libllama aborts the process on a truncated state.
        """
        data = self._native.ffi.from_buffer("uint8_t[]", state)
        flags = self._flags(part)
        return bool(self._lib.llama_state_seq_set_data_ext(self._context, data, len(state), self._seq(seq_id), flags))

    def _flags(self, part: bool) -> int:
        return int(self._lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY) if part else 0
