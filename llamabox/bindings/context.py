"""A context: KV memory and compute buffers for one model, and llama_decode."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings.batch import DecodeBatch, NativeBatch
from llamabox.bindings.ffi import Native, Owned
from llamabox.bindings.memory import Memory
from llamabox.bindings.model import Model
from llamabox.errors import BadBatch, ContextError, DecodeAborted, DecodeFatal, NoRoom
from llamabox.libllama import CACHE_TYPES


class FlashAttention(StrEnum):
    """When to use flash attention. AUTO: where the backend has it."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Pooling(StrEnum):
    """How the vectors of a sequence's tokens become one. UNSPECIFIED: as the model says. RANK: by its classifier."""

    UNSPECIFIED = "unspecified"
    NONE = "none"
    MEAN = "mean"
    CLS = "cls"
    LAST = "last"
    RANK = "rank"


class RopeScaling(StrEnum):
    """How positions beyond the training length are scaled. UNSPECIFIED: as the model says."""

    UNSPECIFIED = "unspecified"
    NONE = "none"
    LINEAR = "linear"
    YARN = "yarn"
    LONGROPE = "longrope"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary position settings; the defaults mean "from the model"."""

    scaling: RopeScaling = RopeScaling.UNSPECIFIED
    freq_base: float = 0.0
    freq_scale: float = 0.0
    yarn_ext_factor: float = -1.0
    yarn_attn_factor: float = -1.0
    yarn_beta_fast: float = -1.0
    yarn_beta_slow: float = -1.0
    yarn_orig_ctx: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextParams:
    """Sizes in tokens. n_ctx is over all sequences; 0 means what the model was trained for."""

    n_ctx: int
    n_batch: int
    n_ubatch: int
    n_seq_max: int
    n_rs_seq: int = 0  # recurrent states kept of the tokens before the last one; see Context.n_rs_seq
    n_threads: int = 0  # 0: libllama's default
    n_threads_batch: int = 0  # 0: as n_threads
    flash_attn: FlashAttention = FlashAttention.AUTO
    kv_unified: bool = True
    swa_full: bool = False
    embeddings: bool = False  # instead of logits
    pooling: Pooling = Pooling.UNSPECIFIED
    offload_kqv: bool = True
    op_offload: bool = True  # large batches with weights of the CPU are a GPU's
    type_k: str = "f16"
    type_v: str = "f16"
    rope: Rope = Rope()


class Context(Owned):
    """Owns a llama_context. Not thread-safe: every call must come from the thread that made it, or last adopted it.

    `close()` must come before the model's.
    """

    def __init__(self, model: Model, params: ContextParams, *, heads_of: Context | None = None) -> None:
        """A context of `heads_of` computes the heads of that context's model, which then has to have some.

        Raises ContextError when libllama will not make it: sizes it refuses, or memory it cannot get.
        """
        self.native = model.native
        self.model = model
        self.native.lib.lb_log_forget_error()
        c = self._fill(params)
        if heads_of is not None:
            assert model.n_mtp_heads, "libllama ends the process"
            self.native.lib.lb_nextn_context(self.native.ffi.addressof(c), heads_of.handle)
        handle = self.native.lib.llama_init_from_model(model.handle, c)
        if handle == self.native.ffi.NULL:
            raise ContextError(f"no context of {params.n_ctx} tokens for {model.path}: {self.native.first_error()}")
        super().__init__(handle, self.native.lib.llama_free, "context")
        self._owner = threading.get_ident()
        self.n_ctx: int = self.native.lib.llama_n_ctx(handle)
        self.n_ctx_seq: int = self.native.lib.llama_n_ctx_seq(handle)
        self.n_batch: int = self.native.lib.llama_n_batch(handle)
        self.n_ubatch: int = self.native.lib.llama_n_ubatch(handle)
        self.n_seq_max: int = self.native.lib.llama_n_seq_max(handle)
        self.n_rs_seq: int = self.native.lib.llama_n_rs_seq(handle)
        """Tokens that a recurrent memory can take back of each sequence's last ubatch; 0 where it cannot."""
        self.n_vocab = model.vocab.n_tokens
        self.params = params
        self.kv_unified = params.kv_unified
        self.memory = Memory(self.native, handle, self.n_seq_max)

    def _fill(self, params: ContextParams) -> Any:
        lib = self.native.lib
        c = lib.llama_context_default_params()
        for name in (
            "n_ctx",
            "n_batch",
            "n_ubatch",
            "n_seq_max",
            "n_rs_seq",
            "kv_unified",
            "swa_full",
            "embeddings",
            "offload_kqv",
            "op_offload",
        ):
            setattr(c, name, getattr(params, name))
        if params.n_threads > 0:
            c.n_threads = c.n_threads_batch = params.n_threads
        if params.n_threads_batch > 0:
            c.n_threads_batch = params.n_threads_batch
        flash = {FlashAttention.AUTO: "AUTO", FlashAttention.ON: "ENABLED", FlashAttention.OFF: "DISABLED"}
        c.flash_attn_type = getattr(lib, f"LLAMA_FLASH_ATTN_TYPE_{flash[params.flash_attn]}")
        c.pooling_type = getattr(lib, f"LLAMA_POOLING_TYPE_{params.pooling.name}")
        c.type_k, c.type_v = self._cache_type(params.type_k), self._cache_type(params.type_v)
        self._fill_rope(c, params.rope)
        c.abort_callback = lib.lb_count_node
        return c

    def _fill_rope(self, c: Any, rope: Rope) -> None:
        c.rope_scaling_type = getattr(self.native.lib, f"LLAMA_ROPE_SCALING_TYPE_{rope.scaling.name}")
        c.rope_freq_base, c.rope_freq_scale = rope.freq_base, rope.freq_scale
        c.yarn_orig_ctx = rope.yarn_orig_ctx
        for name in ("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow"):
            if getattr(rope, name) >= 0:
                setattr(c, name, getattr(rope, name))

    def _cache_type(self, name: str) -> int:
        if name not in CACHE_TYPES:
            raise ContextError(f"no KV cache type {name!r}: there are {', '.join(CACHE_TYPES)}")
        return int(getattr(self.native.lib, f"GGML_TYPE_{name.upper()}"))

    @property
    def handle(self) -> Any:
        """The llama_context, for the thread that owns it."""
        self._check_thread()
        return super().handle

    def _check_thread(self) -> None:
        assert threading.get_ident() == self._owner, "a context is used by one thread: adopt() it first"

    def adopt(self) -> None:
        """Make the calling thread the owner. The old owner must not be inside a call."""
        self._owner = threading.get_ident()

    def close(self) -> None:
        if self.is_open:
            self._check_thread()
        super().close()

    def decode(self, batch: DecodeBatch) -> None:
        """Compute a batch.

        Raises NoRoom or BadBatch (nothing changed), DecodeAborted or DecodeFatal (part of it may be in memory).
        """
        _check_decode(self.native.lib.llama_decode(self.handle, batch.c[0]), batch)

    @contextmanager
    def both_ways(self) -> Iterator[None]:
        """Until the `with` ends, the rows of a batch attend to one another, and to all before them.

        libllama ends the process where such a batch is larger than n_ubatch.
        """
        set_causal = self.native.lib.llama_set_causal_attn
        set_causal(self.handle, False)
        try:
            yield
        finally:
            set_causal(self.handle, True)

    def logits(self, row: int) -> NDArray[np.float32]:
        """The logits of a row of the last batch, shape [n_vocab].

        A view of libllama's own memory, valid until the next decode.
        """
        pointer = self.native.lib.llama_get_logits_ith(self.handle, row)
        assert pointer != self.native.ffi.NULL, f"row {row} of the last batch asked for no logits"
        buffer = self.native.ffi.buffer(pointer, 4 * self.n_vocab)
        return np.frombuffer(buffer, np.float32)

    @property
    def pooling(self) -> Pooling:
        """The pooling in use: the model's where none was asked for, NONE for a model that names none."""
        kind = self.native.lib.llama_pooling_type(self.handle)
        return next(one for one in Pooling if getattr(self.native.lib, f"LLAMA_POOLING_TYPE_{one.name}") == kind)

    def pooled(self, seq_id: int, n_floats: int) -> bytes:
        """The last batch's vector of a sequence as float32, or its classifier's outputs with RANK. A copy."""
        pointer = self.native.lib.llama_get_embeddings_seq(self.handle, seq_id)
        assert pointer != self.native.ffi.NULL, f"sequence {seq_id} was not in the last batch"
        return bytes(self.native.ffi.buffer(pointer, 4 * n_floats))

    def row_vector(self, row: int, n_floats: int) -> bytes:
        """The vector of a row of the last batch as float32, without pooling. A copy."""
        pointer = self.native.lib.llama_get_embeddings_ith(self.handle, row)
        assert pointer != self.native.ffi.NULL, f"row {row} of the last batch has no vector"
        return bytes(self.native.ffi.buffer(pointer, 4 * n_floats))

    def keep_hidden(self, on: bool, *, only_outputs: bool) -> None:
        """Whether decodes keep hidden rows: those that heads take, of all rows of a batch or of those with outputs."""
        self.native.lib.lb_nextn_keep(self.handle, on, only_outputs)

    def hidden_rows(self, n_rows: int) -> NDArray[np.float32]:
        """The hidden rows of the last batch, which had `n_rows`, all kept. Shape [n_rows, n_embd_out].

        A view of libllama's own memory, valid until the next decode.
        """
        return self._floats(self.native.lib.lb_nextn_rows(self.handle), n_rows)

    def hidden_row(self, row: int) -> NDArray[np.float32]:
        """The hidden row of a row of the last batch with an output, shape [n_embd_out]: a view, as above."""
        return self._floats(self.native.lib.lb_nextn_row(self.handle, row), 1).ravel()

    def _floats(self, pointer: Any, n_rows: int) -> NDArray[np.float32]:
        assert pointer != self.native.ffi.NULL, "the last batch kept no hidden rows"
        n_floats = self.model.n_embd_out
        return np.frombuffer(self.native.ffi.buffer(pointer, 4 * n_rows * n_floats), np.float32).reshape(-1, n_floats)

    def top_two(self, row: int) -> tuple[tuple[int, float], tuple[int, float]] | None:
        """The two highest logits of a row, as (token, logit); None for a row with NaN."""
        ids, logits = self.native.ffi.new("llama_token[2]"), self.native.ffi.new("float[2]")
        if not self.native.lib.lb_top_two(self.handle, row, ids, logits):
            return None
        return (ids[0], logits[0]), (ids[1], logits[1])

    def synchronize(self) -> None:
        """Wait until what was computed is there."""
        self.native.lib.llama_synchronize(self.handle)

    @property
    def n_threads(self) -> int:
        """Threads of a decode of one row."""
        return int(self.native.lib.llama_n_threads(self.handle))

    @property
    def n_threads_batch(self) -> int:
        """Threads of a decode of several rows."""
        return int(self.native.lib.llama_n_threads_batch(self.handle))

    def set_n_threads(self, n_threads: int, n_threads_batch: int) -> None:
        self.native.lib.llama_set_n_threads(self.handle, n_threads, n_threads_batch)

    def warm_up(self) -> None:
        """Touch all weights and buffers once, so that the first request need not. Leaves the memory empty."""
        vocab = self.model.vocab
        tokens = [token for token in (vocab.bos, vocab.eos) if token is not None] or [0]
        batch = NativeBatch(self.native, len(tokens))
        rows = batch.extend(tokens, 0, 0)
        batch.logits[rows[-1]] = 1
        self.decode(batch)
        self.synchronize()
        self.memory.clear()


def n_nodes(native: Native) -> int:
    """How many nodes of graphs this process' CPU backend has computed: it changes while a decode makes progress."""
    return int(native.lib.lb_n_nodes())


def _check_decode(code: int, batch: DecodeBatch) -> None:
    """Raise what the code that llama_decode returned means, unless it is 0."""
    if code == 0:
        return
    n_tokens = batch.n_tokens
    if code == 1:
        raise NoRoom(f"no room in the KV memory for a batch of {n_tokens} tokens")
    if code == 2:
        raise DecodeAborted(f"a batch of {n_tokens} tokens was aborted")
    if code == -1:
        raise BadBatch(f"libllama refused a batch of {n_tokens} tokens as invalid")
    raise DecodeFatal(f"computing a batch of {n_tokens} tokens failed with code {code}")
