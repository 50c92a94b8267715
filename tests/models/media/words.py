"""The words of a language model as rows of its input: what a projector made for it puts in their place."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.models.gguf_edit import read_contents

Q8_0 = 8
BLOCK = np.dtype([("scale", "<f2"), ("numbers", "i1", 32)])
"""Of Q8_0: 32 numbers with one scale."""


class Words:
    """The input rows of a model's single-token words. Blanks are written as blanks."""

    def __init__(self, model: Path) -> None:
        contents = read_contents(model)
        entry = contents.tensors["token_embd.weight"]
        assert entry.kind == Q8_0, "the demo model's embeddings"
        self.n_embd, n_tokens = entry.shape
        blocks = np.frombuffer(entry.data, BLOCK, n_tokens * self.n_embd // 32).reshape(n_tokens, -1)
        self._blocks = blocks
        self._ids = {text: token for token, text in enumerate(_strings(contents.pairs["tokenizer.ggml.tokens"]))}

    def row(self, word: str) -> NDArray[np.float64]:
        """Shape (n_embd,)."""
        blocks = self._blocks[self._ids[word.replace(" ", "Ġ").replace("\n", "Ċ")]]
        return (blocks["scale"][:, None].astype(float) * blocks["numbers"]).reshape(-1)


def _strings(pair: bytes) -> list[str]:
    """The elements of an array of texts: `string key | u32 array | u32 string | u64 length | strings`."""
    (n_key,) = struct.unpack_from("<Q", pair)
    at = 8 + n_key + 8
    (count,) = struct.unpack_from("<Q", pair, at)
    at += 8
    found = []
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", pair, at)
        found.append(pair[at + 8 : at + 8 + length].decode())
        at += 8 + length
    return found
