"""A model that computes next to nothing over a vocabulary of any size: for tests that put logits of their own in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.models.gguf_file import Value, write_gguf

N_EMBD = 32


def write_blank(path: Path, n_vocab: int) -> Path:
    """A llama of one layer with `n_vocab` tokens that have no texts. Returns `path`."""
    values: dict[str, Value] = {
        "general.architecture": "llama",
        "llama.vocab_size": n_vocab,
        "llama.context_length": 512,
        "llama.embedding_length": N_EMBD,
        "llama.block_count": 1,
        "llama.feed_forward_length": N_EMBD,
        "llama.attention.head_count": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "none",
    }
    square = np.eye(N_EMBD, dtype=np.float32)
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    norms = ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
    tensors = {f"blk.0.{name}.weight": square for name in names}
    tensors |= {f"{name}.weight": np.ones(N_EMBD, np.float32) for name in norms}
    tensors["token_embd.weight"] = np.ones((n_vocab, N_EMBD), np.float16)
    return write_gguf(path, values, tensors)
