"""Projector files (mmproj) for the demo model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.models.gguf_file import Value, boolean, float32_array, write_gguf
from tests.models.media import colours, tones
from tests.models.media.words import Words

HEAD: dict[str, Value] = {"general.architecture": "clip", "general.type": "mmproj", "general.file_type": 0}

N_TABLE = 512
"""Columns and rows of patches that the non-causal projector has positions for."""


def write_mmproj(path: Path, model: Path, *, vision: bool = True, audio: bool = True, n_idle: int = 0) -> Path:
    """One that sees colours and hears tones, or does one of both. A picture has 16 cells, a word's tone one.

    `n_idle` layers before a picture's rows change nothing: they cost what those of large projectors do. Returns `path`.
    """
    words = Words(model)
    metadata, arrays = dict(HEAD), {}
    if vision:
        metadata |= colours.values(words.n_embd, n_idle)
        arrays |= colours.tensors(words, n_idle)
    if audio:
        metadata |= tones.values(words.n_embd)
        arrays |= tones.tensors(words)
    return write_gguf(path, metadata, arrays)


def write_noncausal_mmproj(path: Path, n_embd: int = 576, *, patch: int = 8) -> Path:
    """Of type "gemma4v", the smallest whose cells attend to one another, and encoded together. Its weights are random.

    Its pictures keep their shape: a cell for `patch` x `patch` pixels, between 70 and 1120 of them. Returns `path`.
    """
    random = np.random.default_rng(5)
    width = 32
    metadata: dict[str, Value] = {
        **HEAD,
        "clip.has_vision_encoder": boolean(True),
        "clip.vision.projector_type": "gemma4v",
        "clip.use_gelu": boolean(True),
        "clip.vision.image_size": 32 * patch,
        "clip.vision.patch_size": patch,
        "clip.vision.projector.scale_factor": 1,
        "clip.vision.embedding_length": width,
        "clip.vision.feed_forward_length": width,
        "clip.vision.projection_dim": n_embd,
        "clip.vision.block_count": 1,
        "clip.vision.attention.head_count": 1,
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.vision.image_mean": float32_array(0.0, 0.0, 0.0),
        "clip.vision.image_std": float32_array(1.0, 1.0, 1.0),
    }
    arrays = {
        "v.patch_embd.weight": random.normal(size=(width, 3, patch, patch)) / patch,
        "v.position_embd.weight": random.normal(size=(2, N_TABLE, width)),
        "mm.input_projection.weight": random.normal(size=(n_embd, width)) * 0.02,
    }
    for name in ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_gate", "ffn_up", "ffn_down"):
        arrays[f"v.blk.0.{name}.weight"] = random.normal(size=(width, width)) / width
    arrays |= {f"v.blk.0.{name}.weight": np.ones(width) for name in ("ln1", "ln2")}
    return write_gguf(path, metadata, {name: array.astype(np.float32) for name, array in arrays.items()})
