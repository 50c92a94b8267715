"""Writes GGUF files (version 3): enough for small models and adapters, and for every way in which one can be wrong.

"GGUF" | u32 version | i64 n_tensors | i64 n_values | values | tensor entries | data, each tensor padded to 32
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, FLOAT64 = 4, 5, 6, 7, 8, 9, 12
F32, F16, Q4_0, I32 = 0, 1, 2, 26
KINDS = {np.dtype(np.float32): F32, np.dtype(np.float16): F16, np.dtype(np.int32): I32}
ALIGNMENT = 32


@dataclass(frozen=True)
class Typed:
    """A value whose GGUF type is not the usual one of its Python type."""

    kind: int
    data: bytes


@dataclass(frozen=True)
class Zeros:
    """A matrix of zeros in Q4_0, which takes a seventh of what it takes as 32-bit numbers. Rows: a multiple of 32."""

    shape: tuple[int, ...]

    def tobytes(self) -> bytes:
        return bytes(math.prod(self.shape) // 32 * 18)


Value = str | int | float | Typed
Tensors = dict[str, NDArray[np.generic]] | dict[str, NDArray[np.generic] | Zeros]


def write_gguf(path: Path, values: dict[str, Value], tensors: Tensors) -> Path:
    """Arrays have numpy's shape, rows last: the reverse of ggml's. int is a u32, float a 32-bit one. Returns `path`."""
    head = b"GGUF" + struct.pack("<Iqq", 3, len(tensors), len(values))
    head += b"".join(pair(key, value) for key, value in values.items())
    data: list[bytes] = []
    offset = 0
    for name, array in tensors.items():
        shape = array.shape[::-1]
        head += _text(name) + struct.pack(f"<I{len(shape)}q", len(shape), *shape)
        kind = Q4_0 if isinstance(array, Zeros) else KINDS[array.dtype]
        head += struct.pack("<IQ", kind, offset)
        raw = array if isinstance(array, Zeros) else np.ascontiguousarray(array)
        data.append(_padded(raw.tobytes()))
        offset += len(data[-1])
    with path.open("wb") as out:
        out.writelines((_padded(head), *data))
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
