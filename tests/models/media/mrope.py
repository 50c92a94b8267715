"""A language model with M-RoPE, made of the demo model, and a projector for it whose pictures have rows and columns.

The demo model turns the elements of a key by pairs of neighbours, a Qwen2-VL by pairs that are half a head apart, in
three sections: by time, row and column. With the rows of its query and key matrices put in that order, the demo model
is a Qwen2-VL that says of a text what the demo model says, since all three are the same there.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.models.gguf_edit import Contents, Entry, padded, read_contents
from tests.models.gguf_file import Value, boolean, float32_array, int32_array, write_gguf
from tests.models.media.colours import COLOURS, N_FEATURES, colour_classifier
from tests.models.media.words import Words

N_HEAD_ELEMENTS = 64
SECTIONS = (12, 10, 10, 0)
"""Pairs of a head that are turned by time, row and column."""

PATCH = 8
WIDTH = 32


def write_mrope_model(path: Path, model: Path) -> Path:
    """The demo model as a Qwen2-VL. Returns `path`."""
    contents = read_contents(model)
    pairs = {}
    for key, pair in contents.pairs.items():
        value = pair[8 + len(key) :]
        if key == "general.architecture":
            value = struct.pack("<IQ", 8, 7) + b"qwen2vl"
        name = key.replace("llama.", "qwen2vl.", 1).encode() if key.startswith("llama.") else key.encode()
        pairs[name.decode()] = struct.pack("<Q", len(name)) + name + value
    name = b"qwen2vl.rope.dimension_sections"
    sections = int32_array(*SECTIONS)
    pairs[name.decode()] = struct.pack("<Q", len(name)) + name + struct.pack("<I", sections.kind) + sections.data
    tensors = {
        name: _halved(entry) if ".attn_q." in name or ".attn_k." in name else entry
        for name, entry in contents.tensors.items()
    }
    return Contents(pairs, tensors).write(path)


def _idle_layer() -> dict[str, NDArray[np.float64]]:
    """A transformer layer that adds nothing. libmtmd ends the process without one."""
    found = {f"v.blk.0.{name}.weight": np.ones(WIDTH) for name in ("ln1", "ln2")}
    found |= {f"v.blk.0.{name}.bias": np.zeros(WIDTH) for name in ("ln1", "ln2")}
    for name in ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down"):
        found |= {f"v.blk.0.{name}.weight": np.zeros((WIDTH, WIDTH)), f"v.blk.0.{name}.bias": np.zeros(WIDTH)}
    return found


def _halved(entry: Entry) -> Entry:
    """Of each head the even rows first, then the odd ones."""
    _, n_rows = entry.shape
    n_bytes = _row_bytes(entry)
    heads = np.frombuffer(entry.data, np.uint8, n_rows * n_bytes).reshape(-1, N_HEAD_ELEMENTS, n_bytes)
    return Entry(entry.shape, entry.kind, padded(np.concatenate([heads[:, 0::2], heads[:, 1::2]], axis=1).tobytes()))


def _row_bytes(entry: Entry) -> int:
    """Of a quantised matrix in blocks of 32 numbers: by its type."""
    return entry.shape[0] // 32 * {2: 18, 3: 20, 8: 34}[entry.kind]


def write_mrope_mmproj(path: Path, model: Path) -> Path:
    """A projector of type "qwen2vl": each cell is the name of the colour of 16 x 16 pixels.

    A picture has as many rows and columns as that makes, 8 to 4096 cells. Returns `path`.
    """
    words = Words(model)
    weights, bias, readout = colour_classifier()
    names = np.stack([words.row(" " + name) for name in COLOURS], axis=1)
    patches = np.zeros((WIDTH, 3, PATCH, PATCH))
    for channel in range(3):
        patches[channel, channel] = 1 / PATCH**2
    inner = np.zeros((N_FEATURES, 4 * WIDTH))  # of four patches side by side, a cell
    for i in range(4):
        inner[:, i * WIDTH : i * WIDTH + 3] = weights / 4
    metadata: dict[str, Value] = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.has_vision_encoder": boolean(True),
        "clip.projector_type": "qwen2vl_merger",
        "clip.use_gelu": boolean(True),
        "clip.vision.image_size": 16 * PATCH,
        "clip.vision.patch_size": PATCH,
        "clip.vision.embedding_length": WIDTH,
        "clip.vision.feed_forward_length": WIDTH,
        "clip.vision.projection_dim": words.n_embd,
        "clip.vision.block_count": 1,
        "clip.vision.attention.head_count": 1,
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.image_mean": float32_array(0.5, 0.5, 0.5),
        "clip.vision.image_std": float32_array(0.5, 0.5, 0.5),
    }
    arrays: dict[str, NDArray[np.float64]] = {
        "v.patch_embd.weight": patches / 2,
        "v.patch_embd.weight.1": patches / 2,
        "mm.0.weight": inner,
        "mm.0.bias": bias,
        "mm.2.weight": names @ readout.T,
        "mm.2.bias": np.zeros(words.n_embd),
        **_idle_layer(),
    }
    return write_gguf(path, metadata, {name: array.astype(np.float32) for name, array in arrays.items()})
