"""Writes GGUF files (version 3): enough for small models and adapters, and for every way in which one can be wrong.

"GGUF" | u32 version | i64 n_tensors | i64 n_values | values | tensor entries | data, each tensor padded to 32
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, FLOAT64 = 4, 5, 6, 7, 8, 9, 12
F32, F16, Q4_0, Q8_0, I32 = 0, 1, 2, 8, 26
KINDS = {np.dtype(np.float32): F32, np.dtype(np.float16): F16, np.dtype(np.int32): I32}
ALIGNMENT = 32


@dataclass(frozen=True)
class Typed:
    """A value whose GGUF type is not the usual one of its Python type."""

    kind: int
    data: bytes


class Packed(Protocol):
    """A tensor of a type that numpy has not. Its bytes are made when they are written."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def kind(self) -> int:
        """GGML_TYPE_*."""

    @property
    def nbytes(self) -> int: ...
    def tobytes(self) -> bytes: ...


@dataclass(frozen=True)
class Zeros:
    """A matrix of zeros in Q4_0, which takes a seventh of what it takes as 32-bit numbers. Rows: a multiple of 32."""

    shape: tuple[int, ...]
    kind = Q4_0

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) // 32 * 18

    def tobytes(self) -> bytes:
        return bytes(self.nbytes)


@dataclass(frozen=True)
class ByBytes:
    """A matrix in Q8_0: 32 numbers each as bytes, and what they are multiples of. Rows: a multiple of 32."""

    numbers: NDArray[np.float32]
    kind = Q8_0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.numbers.shape

    @property
    def nbytes(self) -> int:
        return self.numbers.size // 32 * 34

    def tobytes(self) -> bytes:
        blocks = self.numbers.reshape(-1, 32)
        unit = np.abs(blocks).max(axis=1, keepdims=True) / 127
        whole = np.rint(np.divide(blocks, unit, out=np.zeros_like(blocks), where=unit > 0)).astype(np.int8)
        return np.hstack([unit.astype("<f2").view(np.uint8), whole.view(np.uint8)]).tobytes()


Value = str | int | float | Typed
Tensors = Mapping[str, NDArray[np.generic]] | Mapping[str, NDArray[np.generic] | Packed]


def write_gguf(path: Path, values: dict[str, Value], tensors: Tensors) -> Path:
    """Arrays have numpy's shape, rows last: the reverse of ggml's. int is a u32, float a 32-bit one. Returns `path`."""
    head = b"GGUF" + struct.pack("<Iqq", 3, len(tensors), len(values))
    head += b"".join(pair(key, value) for key, value in values.items())
    offset = 0
    for name, tensor in tensors.items():
        shape = tensor.shape[::-1]
        head += _text(name) + struct.pack(f"<I{len(shape)}q", len(shape), *shape)
        kind = KINDS[tensor.dtype] if isinstance(tensor, np.ndarray) else tensor.kind
        head += struct.pack("<IQ", kind, offset)
        offset += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    with path.open("wb") as out:
        out.write(_padded(head))
        out.writelines(_padded(tensor.tobytes()) for tensor in tensors.values())
    return path


def pair(key: str, value: Value) -> bytes:
    """A value with its key, as a file has it."""
    return _text(key) + _value(value)


def boolean(value: bool) -> Typed:
    return Typed(BOOL, struct.pack("<?", value))


def strings(*texts: str) -> Typed:
    return Typed(ARRAY, struct.pack("<IQ", STRING, len(texts)) + b"".join(map(_text, texts)))


def int32_array(*numbers: int) -> Typed:
    return Typed(ARRAY, struct.pack(f"<IQ{len(numbers)}i", INT32, len(numbers), *numbers))


def uint32_array(*numbers: int) -> Typed:
    return Typed(ARRAY, struct.pack(f"<IQ{len(numbers)}I", UINT32, len(numbers), *numbers))


def float32_array(*numbers: float) -> Typed:
    return Typed(ARRAY, struct.pack(f"<IQ{len(numbers)}f", FLOAT32, len(numbers), *numbers))


def _value(value: Value) -> bytes:
    if isinstance(value, Typed):
        return struct.pack("<I", value.kind) + value.data
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    return struct.pack("<If", FLOAT32, value) if isinstance(value, float) else struct.pack("<II", UINT32, value)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
