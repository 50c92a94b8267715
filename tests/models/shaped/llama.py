"""Llama-like models of any shape and format, with random weights and a real model's vocabulary: for speed alone.

Their words mean nothing. What a step costs depends on the shapes and types of the matrices, and those are as in files
that people run: a model in a K format has its output, and half of its values and last feed-forward matrices, in Q6_K.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.models.gguf_edit import read_contents
from tests.models.gguf_file import Packed, Typed, Value, write_gguf
from tests.models.shaped.weights import FORMATS, Format, RandomWeights

MIXED = ("q4_k", "q5_k", "iq4_xs", "mxfp4")
"""Files of these formats have their most delicate matrices in Q6_K."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a model is like. `n_experts`: of each layer, of which every token visits `n_used`; 0: no mixture."""

    n_layer: int = 16
    n_embd: int = 2048
    n_ff: int = 8192
    n_head: int = 32
    n_head_kv: int = 8
    n_experts: int = 0
    n_used: int = 0
    n_ctx_train: int = 8192


def write_shaped(path: Path, vocabulary: Path, shape: Shape, format_name: str) -> Path:
    """Writes a model with the vocabulary of the model `vocabulary`, piece by piece. Returns `path`.

    Widths must be multiples of the format's block.
    """
    pairs = read_contents(vocabulary).pairs
    words = {key: _typed(key, pair) for key, pair in pairs.items() if key.startswith("tokenizer.")}
    (n_vocab,) = struct.unpack_from("<Q", words["tokenizer.ggml.tokens"].data, 4)
    return write_gguf(path, {**_metadata(shape), **words}, _tensors(shape, format_name, n_vocab))


def _typed(key: str, pair: bytes) -> Typed:
    """The value of a stored pair, `u64 length | key | u32 type | value`."""
    at = 8 + len(key.encode())
    return Typed(struct.unpack_from("<I", pair, at)[0], pair[at + 4 :])


def _metadata(shape: Shape) -> dict[str, Value]:
    mixture = (
        {"llama.expert_count": shape.n_experts, "llama.expert_used_count": shape.n_used} if shape.n_experts else {}
    )
    return {
        "general.architecture": "llama",
        "general.name": "random weights",
        "llama.block_count": shape.n_layer,
        "llama.context_length": shape.n_ctx_train,
        "llama.embedding_length": shape.n_embd,
        "llama.feed_forward_length": shape.n_ff,
        "llama.attention.head_count": shape.n_head,
        "llama.attention.head_count_kv": shape.n_head_kv,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": shape.n_embd // shape.n_head,
        **mixture,
    }


def _tensors(shape: Shape, name: str, n_vocab: int) -> dict[str, NDArray[np.generic] | Packed]:
    usual, delicate = FORMATS[name], FORMATS["q6_k" if name in MIXED else name]
    n_embd, n_kv = shape.n_embd, shape.n_embd // shape.n_head * shape.n_head_kv
    found: dict[str, NDArray[np.generic] | Packed] = {}

    def put(key: str, *lengths: int, of: Format = usual) -> None:
        found[f"{key}.weight"] = RandomWeights(lengths, of, len(found))

    put("token_embd", n_vocab, n_embd, of=delicate)
    put("output", n_vocab, n_embd, of=delicate)
    found["output_norm.weight"] = np.ones(n_embd, np.float32)
    experts, suffix = ((shape.n_experts,), "_exps") if shape.n_experts else ((), "")
    for layer in range(shape.n_layer):
        block, last = f"blk.{layer}", delicate if layer % 2 else usual
        found[f"{block}.attn_norm.weight"] = found[f"{block}.ffn_norm.weight"] = np.ones(n_embd, np.float32)
        put(f"{block}.attn_q", n_embd, n_embd)
        put(f"{block}.attn_k", n_kv, n_embd)
        put(f"{block}.attn_v", n_kv, n_embd, of=last)
        put(f"{block}.attn_output", n_embd, n_embd)
        if shape.n_experts:
            router = np.random.default_rng(layer).standard_normal((shape.n_experts, n_embd), np.float32)
            found[f"{block}.ffn_gate_inp.weight"] = router / np.float32(math.sqrt(n_embd))
        put(f"{block}.ffn_gate{suffix}", *experts, shape.n_ff, n_embd)
        put(f"{block}.ffn_up{suffix}", *experts, shape.n_ff, n_embd)
        put(f"{block}.ffn_down{suffix}", *experts, n_embd, shape.n_ff, of=last)
    return found
