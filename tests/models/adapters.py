"""Hand-made adapters for SmolLM2-135M (30 layers of width 576, architecture llama): what they do can be seen.

A rank-1 LoRA adds scale * (a · x) * b to what one matrix makes of x. With numbers drawn by a fixed seed, large enough,
on the last layer's way out, the model says something else.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.models.gguf_file import Value, write_gguf

N_EMBD, N_LAYER = 576, 30
LAST = f"blk.{N_LAYER - 1}.attn_output.weight"

Array = NDArray[np.generic]

LORA: dict[str, Value] = {
    "general.architecture": "llama",
    "general.type": "adapter",
    "adapter.type": "lora",
    "adapter.lora.alpha": 1.0,
}
"""The metadata of a LoRA: its effective scale is scale * alpha / rank."""


def pair(base: str, a: NDArray[np.generic], b: NDArray[np.generic]) -> dict[str, Array]:
    """`a` has the shape (rank, n_in), `b` (n_out, rank)."""
    return {base + ".lora_a": a, base + ".lora_b": b}


def drawn(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rank_one(seed: int = 1) -> dict[str, Array]:
    """Tensors of an adapter of the last layer."""
    return pair(LAST, drawn(seed, 1, N_EMBD), drawn(seed + 1000, N_EMBD, 1))


def make_lora(path: Path, seed: int = 1, **values: Value) -> Path:
    """An adapter of some 5 KB that changes what the model says; another seed, another change."""
    return write_gguf(path, {**LORA, **values}, rank_one(seed))


def make_control_vector(path: Path, seed: int = 1, layers: range = range(10, 21), strength: float = 1.0) -> Path:
    """A direction for each of the layers; at strength 1 the greedy answer changes."""
    tensors: dict[str, Array] = {f"direction.{layer}": strength * drawn(seed + layer, N_EMBD) for layer in layers}
    return write_gguf(path, {"general.architecture": "controlvector"}, tensors)
