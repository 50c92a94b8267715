"""Forms of a model that draft for it, and one whose vocabulary is another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.models.gguf_edit import Contents, Entry, padded, read_contents

Q4_0, Q4_1 = 2, 3
BLOCK = 32


def write_q4_0(source: Path, target: Path) -> Path:
    """A model whose Q4_1 matrices are Q4_0: a little coarser, so that it says nearly the same. Returns `target`."""
    contents = read_contents(source)
    tensors = {
        name: Entry(entry.shape, Q4_0, padded(to_q4_0(from_q4_1(entry)))) if entry.kind == Q4_1 else entry
        for name, entry in contents.tensors.items()
    }
    return Contents(contents.pairs, tensors).write(target)


def write_renamed(source: Path, target: Path, name: bytes, other: bytes) -> Path:
    """A model whose token `name` is called `other`, which is as long. Returns `target`."""
    assert len(name) == len(other)
    contents = read_contents(source)
    key = "tokenizer.ggml.tokens"
    entry = len(name).to_bytes(8, "little")
    found = contents.pairs[key].replace(entry + name, entry + other, 1)
    assert found != contents.pairs[key]
    return Contents({**contents.pairs, key: found}, contents.tensors).write(target)


def from_q4_1(entry: Entry) -> NDArray[np.float32]:
    """The values in blocks: a scale, a minimum, and 32 numbers of 4 bits, of which the first 16 are the low halves."""
    n_blocks = int(np.prod(entry.shape)) // BLOCK
    blocks = np.frombuffer(entry.data, np.uint8, 20 * n_blocks).reshape(n_blocks, 20)
    scales = blocks[:, :4].copy().view(np.float16).astype(np.float32)
    numbers = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    return numbers * scales[:, :1] + scales[:, 1:]


def to_q4_0(values: NDArray[np.float32]) -> bytes:
    """Blocks of a scale and 32 numbers of 4 bits around 8, as ggml makes them: the value farthest from 0 becomes -8."""
    farthest = np.take_along_axis(values, np.abs(values).argmax(axis=1)[:, None], axis=1)
    scales = farthest / -8
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    numbers = np.minimum(15, values * inverse + 8.5).astype(np.uint8)
    packed = numbers[:, :16] | (numbers[:, 16:] << 4)
    return np.concatenate([scales.astype(np.float16).view(np.uint8), packed], axis=1).tobytes()
