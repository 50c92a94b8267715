"""Tiny models with the demo model's vocabulary and random weights; two have memories that cannot simply be cut.

They say nonsense, but each next token depends on all before it: a state that is not what it should be shows at once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.models.gguf_edit import Contents, Entry, padded, read_contents
from tests.models.gguf_file import Value, pair, uint32_array

F32, Q4_0 = 0, 2
Q4_0_BLOCK = np.dtype([("scale", "<f2"), ("numbers", "u1", 16)])
"""32 numbers from -8 to 7, two a byte, and what they are multiplied with."""

SPREAD = 4.6
"""Standard deviation of numbers from -8 to 7."""

N_EMBD, N_FF, N_HEAD, N_HEAD_ELEMENTS = 32, 64, 2, 16
WINDOW = 64
"""Tokens that the sliding layers look back at."""

SHARP = 2.0
"""Of queries and keys: a row attends to few cells, and not to the mean of all, which is much the same in any text."""

LOUD = 8.0
"""What layers add, against a token's own row: else each token says itself again."""

COMMON: dict[str, Value] = {
    "context_length": 4096,
    "embedding_length": N_EMBD,
    "feed_forward_length": N_FF,
    "attention.head_count": N_HEAD,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 10000.0,
}


class Weights:
    """Tensors of random numbers by name, equal in each run."""

    def __init__(self, n_vocab: int) -> None:
        self._random = np.random.default_rng(0)
        self.tensors: dict[str, Entry] = {}
        self.add("token_embd.weight", N_EMBD, n_vocab)

    def add(self, name: str, n_columns: int, n_rows: int) -> None:
        """A matrix that keeps the size of what it is multiplied with, of a kind for which there are kernels of ours.

        They compute a row alike whatever is beside it.
        """
        blocks = np.empty(n_rows * n_columns // 32, Q4_0_BLOCK)
        blocks["scale"] = n_columns**-0.5 / SPREAD
        blocks["numbers"] = self._random.integers(0, 256, (len(blocks), 16), np.uint8)
        self.tensors[name] = Entry((n_columns, n_rows), Q4_0, padded(blocks.tobytes()))

    def exact(self, name: str, numbers: NDArray[np.int8], scale: float = 1.0) -> None:
        """A matrix of numbers from -8 to 7 times `scale`. Its rows are multiples of 32 long."""
        n_rows, n_columns = numbers.shape
        halves = (numbers + 8).astype(np.uint8).reshape(-1, 2, 16)
        blocks = np.empty(len(halves), Q4_0_BLOCK)
        blocks["scale"] = scale
        blocks["numbers"] = halves[:, 0] | halves[:, 1] << 4
        self.tensors[name] = Entry((n_columns, n_rows), Q4_0, padded(blocks.tobytes()))

    def convolution(self, name: str, n_tokens: int) -> None:
        numbers = self._random.standard_normal((N_EMBD, n_tokens), np.float32) * n_tokens**-0.5
        self.tensors[name] = Entry((n_tokens, N_EMBD), F32, padded(numbers.astype("<f4").tobytes()))

    def norm(self, name: str, size: int, scale: float = 1.0) -> None:
        self.tensors[name] = Entry((size,), F32, padded(np.full(size, scale, "<f4").tobytes()))

    def attention(self, layer: int, n_head_kv: int) -> None:
        block = f"blk.{layer}.attn"
        self.add(f"{block}_q.weight", N_EMBD, N_HEAD * N_HEAD_ELEMENTS)
        for part in "kv":
            self.add(f"{block}_{part}.weight", N_EMBD, n_head_kv * N_HEAD_ELEMENTS)
        self.add(f"{block}_output.weight", N_HEAD * N_HEAD_ELEMENTS, N_EMBD)
        for part in "qk":
            self.norm(f"{block}_{part}_norm.weight", N_HEAD_ELEMENTS, SHARP)

    def feed_forward(self, layer: int) -> None:
        self.norm(f"blk.{layer}.attn_norm.weight", N_EMBD)
        self.norm(f"blk.{layer}.ffn_norm.weight", N_EMBD)
        for part in ("gate", "up"):
            self.add(f"blk.{layer}.ffn_{part}.weight", N_EMBD, N_FF)
        self.add(f"blk.{layer}.ffn_down.weight", N_FF, N_EMBD)


def write_hybrid(path: Path, demo: Path) -> Path:
    """An LFM2: layers of short convolutions, which have a state, beside layers of attention. Returns `path`."""
    vocabulary, n_vocab = vocabulary_of(demo)
    weights = Weights(n_vocab)
    heads = (0, 1, 0, 1)
    for layer, n_head_kv in enumerate(heads):
        weights.feed_forward(layer)
        if n_head_kv:
            weights.attention(layer, n_head_kv)
        else:
            weights.convolution(f"blk.{layer}.shortconv.conv.weight", 3)
            weights.add(f"blk.{layer}.shortconv.in_proj.weight", N_EMBD, 3 * N_EMBD)
            weights.add(f"blk.{layer}.shortconv.out_proj.weight", N_EMBD, N_EMBD)
    weights.norm("token_embd_norm.weight", N_EMBD)
    values = {
        "block_count": len(heads),
        "attention.head_count_kv": uint32_array(*heads),
        "shortconv.l_cache": 3,
        "vocab_size": n_vocab,
    }
    return write_model(path, "lfm2", values, vocabulary, weights)


def write_sliding(path: Path, demo: Path) -> Path:
    """A Gemma 3: every other layer attends to the last WINDOW tokens alone. Returns `path`."""
    return _write_gemma(path, demo, {"attention.sliding_window": WINDOW, "attention.sliding_window_pattern": 2})


def write_plain(path: Path, demo: Path) -> Path:
    """A Gemma 3 all of whose layers attend to everything. Returns `path`."""
    return _write_gemma(path, demo, {})


def _write_gemma(path: Path, demo: Path, window: dict[str, Value]) -> Path:
    vocabulary, n_vocab = vocabulary_of(demo)
    weights = Weights(n_vocab)
    for layer in range(4):
        weights.feed_forward(layer)
        weights.attention(layer, 1)
        weights.norm(f"blk.{layer}.post_attention_norm.weight", N_EMBD, LOUD)
        weights.norm(f"blk.{layer}.post_ffw_norm.weight", N_EMBD, LOUD)
    weights.norm("output_norm.weight", N_EMBD)
    values: dict[str, Value] = {
        "block_count": 4,
        "attention.head_count_kv": 1,
        "attention.key_length": N_HEAD_ELEMENTS,
        "attention.value_length": N_HEAD_ELEMENTS,
        "vocab_size": n_vocab,
        **window,
    }
    return write_model(path, "gemma3", values, vocabulary, weights)


def vocabulary_of(demo: Path) -> tuple[dict[str, bytes], int]:
    """The pairs of the demo model's tokenizer, as they are stored, and how many tokens it has."""
    contents = read_contents(demo)
    pairs = {key: data for key, data in contents.pairs.items() if key.startswith("tokenizer.")}
    return pairs, contents.tensors["token_embd.weight"].shape[1]


def write_model(
    path: Path, name: str, values: dict[str, Value], vocabulary: dict[str, bytes], weights: Weights
) -> Path:
    """Write a model of the architecture `name`. Returns `path`."""
    all_values: dict[str, Value] = {"general.architecture": name}
    all_values |= {f"{name}.{key}": value for key, value in {**COMMON, **values}.items()}
    return Contents({key: pair(key, value) for key, value in all_values.items()} | vocabulary, weights.tensors).write(
        path
    )
