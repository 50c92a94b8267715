"""Tiny models with a head of multi-token prediction, with the demo model's vocabulary.

In some each token says which one comes next, whatever stood before it, and their heads know that: by the token that
they take, so that drafts of any length are right; or by the hidden row alone, so that the first token of a draft is
right, provided that the row is that of the position in front. The others' weights are random.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.models.gguf_edit import Entry, padded
from tests.models.gguf_file import Value, int32_array
from tests.models.memories.tiny import F32, N_EMBD, N_FF, N_HEAD, N_HEAD_ELEMENTS, Weights, vocabulary_of, write_model

N_LAYER = 2
HEAD = f"blk.{N_LAYER}"

N_CONVOLVED, N_STATE, N_STATES = 4, 16, 16
"""Tokens that a convolution sees; sides of a state; states of a layer."""

FIRST = 1000
"""Tokens below follow no token: the special ones are among them."""

STEP = 7919
"""From a token to the one that follows it, around the vocabulary. A prime: the circle has all tokens."""

SURE = 2.0
"""What rows are multiplied with before logits are made: the likeliest token is nearly certain."""


def next_token(token: int, n_vocab: int) -> int:
    """What follows `token`, which is FIRST or above."""
    return FIRST + (token - FIRST + STEP) % (n_vocab - FIRST)


def write_knowing_by_token(path: Path, demo: Path, n_layer: int = N_LAYER) -> Path:
    """Beside more layers its head costs less. Returns `path`."""
    return _write_certain(path, demo, "hy_v3", n_layer, takes_hidden=False)


def write_knowing_by_hidden_row(path: Path, demo: Path) -> Path:
    """Returns `path`."""
    return _write_certain(path, demo, "hy_v3", N_LAYER, takes_hidden=True)


def write_knowing_hybrid(path: Path, demo: Path) -> Path:
    """A Qwen 3.5 whose head knows the next token by the hidden row. Returns `path`."""
    return _write_certain(path, demo, "qwen35", N_LAYER, takes_hidden=True)


def write_ignorant(path: Path, demo: Path) -> Path:
    """Returns `path`."""
    return _write_random(path, demo, "hy_v3")


def write_ignorant_hybrid(path: Path, demo: Path) -> Path:
    """A Qwen 3.5: one layer has a state, the other one and the head have attention. Returns `path`."""
    return _write_random(path, demo, "qwen35")


def _write_random(path: Path, demo: Path, architecture: str) -> Path:
    """Each token depends on all before it, and the head knows nothing."""
    vocabulary, n_vocab = vocabulary_of(demo)
    weights = Weights(n_vocab)
    _add_layers(weights, architecture, N_LAYER)
    weights.norm("output_norm.weight", N_EMBD)
    weights.add("output.weight", N_EMBD, n_vocab)
    weights.add(f"{HEAD}.nextn.eh_proj.weight", 2 * N_EMBD, N_EMBD)
    return write_model(path, architecture, _values(architecture, N_LAYER, n_vocab), vocabulary, weights)


def _write_certain(path: Path, demo: Path, architecture: str, n_layer: int, *, takes_hidden: bool) -> Path:
    """Layers add nothing to a token's own row of signs, which the output finds again behind the next token."""
    vocabulary, n_vocab = vocabulary_of(demo)
    weights = Weights(n_vocab)
    signs = np.random.default_rng(1).choice(np.array([-1, 1], np.int8), (n_vocab, N_EMBD))
    weights.exact("token_embd.weight", signs)
    _add_layers(weights, architecture, n_layer)
    for name, entry in weights.tensors.items():
        if name.split(".")[-2] in ("attn_output", "ffn_down", "ssm_out"):
            weights.exact(name, np.zeros(entry.shape[::-1], np.int8))
    weights.norm("output_norm.weight", N_EMBD, SURE)
    weights.exact("output.weight", _rows_behind(signs, 1))
    taken = np.eye(N_EMBD, 2 * N_EMBD, N_EMBD if takes_hidden else 0, dtype=np.int8)
    weights.exact(f"blk.{n_layer}.nextn.eh_proj.weight", taken)  # of the token's row and the hidden one, side by side
    if takes_hidden:  # a hidden row is that of the token before
        weights.exact(f"blk.{n_layer}.nextn.shared_head_head.weight", _rows_behind(signs, 2))
    return write_model(path, architecture, _values(architecture, n_layer, n_vocab), vocabulary, weights)


def _rows_behind(signs: NDArray[np.int8], n_steps: int) -> NDArray[np.int8]:
    """For each token the row of the one that it follows after so many steps; zeros where it follows none."""
    n_vocab = len(signs)
    rows = np.zeros_like(signs)
    tokens = np.arange(FIRST, n_vocab)
    followers = FIRST + (tokens - FIRST + n_steps * STEP) % (n_vocab - FIRST)
    rows[followers] = signs[tokens]
    return rows


def _add_layers(weights: Weights, architecture: str, n_layer: int) -> None:
    for layer in range(n_layer + 1):
        weights.feed_forward(layer)
        if architecture == "hy_v3":
            weights.attention(layer, 1)
            continue
        weights.norm(f"blk.{layer}.post_attention_norm.weight", N_EMBD)
        del weights.tensors[f"blk.{layer}.ffn_norm.weight"]
        if layer == 0:
            _add_delta_net(weights, layer)
        else:
            weights.attention(layer, 1)
            weights.add(f"blk.{layer}.attn_q.weight", N_EMBD, 2 * N_HEAD * N_HEAD_ELEMENTS)  # with gates
    for name in ("enorm", "hnorm"):
        weights.norm(f"blk.{n_layer}.nextn.{name}.weight", N_EMBD)


def _add_delta_net(weights: Weights, layer: int) -> None:
    """Linear attention with a state, whose size does not depend on the text's length."""
    n_values, n_mixed = N_STATE * N_STATES, N_STATE * (2 + N_STATES)
    block = f"blk.{layer}"
    weights.add(f"{block}.attn_qkv.weight", N_EMBD, n_mixed)
    weights.add(f"{block}.attn_gate.weight", N_EMBD, n_values)
    random = np.random.default_rng(2)
    for name, shape, numbers in (
        ("ssm_conv1d.weight", (N_CONVOLVED, n_mixed), random.standard_normal(N_CONVOLVED * n_mixed)),
        ("ssm_dt.bias", (N_STATES,), random.standard_normal(N_STATES)),
        ("ssm_a", (N_STATES,), -random.uniform(0.05, 0.5, N_STATES)),
    ):
        weights.tensors[f"{block}.{name}"] = Entry(shape, F32, padded(numbers.astype("<f4").tobytes()))
    for name in ("ssm_alpha", "ssm_beta"):
        weights.add(f"{block}.{name}.weight", N_EMBD, N_STATES)
    weights.norm(f"{block}.ssm_norm.weight", N_STATE)
    weights.add(f"{block}.ssm_out.weight", n_values, N_EMBD)


def _values(architecture: str, n_layer: int, n_vocab: int) -> dict[str, Value]:
    values: dict[str, Value] = {
        "block_count": n_layer + 1,
        "nextn_predict_layers": 1,
        "attention.head_count_kv": 1,
        "attention.key_length": N_HEAD_ELEMENTS,
        "attention.value_length": N_HEAD_ELEMENTS,
        "rope.dimension_count": N_HEAD_ELEMENTS,
        "vocab_size": n_vocab,
    }
    if architecture == "hy_v3":
        return {**values, "expert_feed_forward_length": N_FF}
    return {
        **values,
        "rope.dimension_sections": int32_array(3, 3, 2, 0),
        "full_attention_interval": N_LAYER,
        "ssm.conv_kernel": N_CONVOLVED,
        "ssm.inner_size": N_STATE * N_STATES,
        "ssm.state_size": N_STATE,
        "ssm.time_step_rank": N_STATES,
        "ssm.group_count": 1,
    }
