"""Random weights in ggml's own types: numbers of a usual size, of no meaning."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Format:
    """A type of ggml's: blocks of `n_elements` weights in `n_bytes`.

    With scales of 1 and all other bits random, weights have the standard deviation `spread`. `scales` are where a
    block has its 16-bit scales, each with what it is a multiple of; None: an exponent of 8 bits stands first.
    """

    kind: int  # GGML_TYPE_*
    n_elements: int
    n_bytes: int
    spread: float
    scales: tuple[tuple[int, float], ...] | None = ((0, 1.0),)


# Q4_K and Q5_K: scale * a 6-bit number * a 4- or 5-bit one, less minimum * a 6-bit number, whose means are to be equal.
FORMATS = {
    "f16": Format(1, 1, 2, 1.0, ()),
    "q4_0": Format(2, 32, 18, 4.6),
    "q4_1": Format(3, 32, 20, 4.6, ((0, 1.0), (2, -7.5))),
    "q8_0": Format(8, 32, 34, 74.0),
    "q4_k": Format(12, 256, 144, 258.0, ((0, 1.0), (2, 7.5))),
    "q5_k": Format(13, 256, 176, 530.0, ((0, 1.0), (2, 15.5))),
    "q6_k": Format(14, 256, 210, 1370.0, ((208, 1.0),)),
    "iq4_xs": Format(23, 256, 136, 1280.0),
    "mxfp4": Format(39, 32, 17, 2.9, None),
}
EXPONENT_BIAS = 127


@dataclass(frozen=True)
class RandomWeights:
    """A matrix, or a stack of them, of normal spread: 1 / sqrt(columns). The same `seed` gives the same weights."""

    shape: tuple[int, ...]
    format: Format
    seed: int

    @property
    def kind(self) -> int:
        return self.format.kind

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) // self.format.n_elements * self.format.n_bytes

    def tobytes(self) -> bytes:
        draw = np.random.default_rng(self.seed)
        size = 1 / math.sqrt(self.shape[-1])
        if self.format.n_elements == 1:
            return (draw.standard_normal(math.prod(self.shape), np.float32) * size).astype("<f2").tobytes()
        blocks = draw.integers(0, 256, (self.nbytes // self.format.n_bytes, self.format.n_bytes), np.uint8)
        scale = size / self.format.spread
        if self.format.scales is None:
            blocks[:, 0] = EXPONENT_BIAS + round(math.log2(scale))
        for at, multiple in self.format.scales or ():
            blocks[:, at : at + 2] = np.frombuffer(struct.pack("<e", scale * multiple), np.uint8)
        return blocks.tobytes()
