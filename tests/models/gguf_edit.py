"""A copy of a GGUF file with other metadata or tensors: everything else byte for byte the same.

Layout (GGUF 3, little endian): "GGUF", u32 version, u64 tensors, u64 pairs; then the pairs, each `string key | u32 type
| value`; then the tensors' entries, each `string name | u32 n_dims | u64 sizes | u32 type | u64 offset`; then, at the
next multiple of the alignment, their data. Offsets count from the start of the data: the header may change its length.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

UINT32, STRING, ARRAY = 4, 8, 9
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor: its shape in ggml's order, the length of a row first; its GGML_TYPE_*; its data, padded."""

    shape: tuple[int, ...]
    kind: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Contents:
    """A file taken apart: each pair as it is stored, by its key, and the tensors by their names."""

    pairs: dict[str, bytes]
    tensors: dict[str, Entry]

    def write(self, target: Path) -> Path:
        """Returns `target`."""
        header = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.pairs)) + b"".join(self.pairs.values())
        offset = 0
        for name, entry in self.tensors.items():
            n_dims = len(entry.shape)
            header += _pack(name) + struct.pack(f"<I{n_dims}QIQ", n_dims, *entry.shape, entry.kind, offset)
            offset += len(entry.data)
        with target.open("wb") as out:
            out.write(padded(header))
            out.writelines(entry.data for entry in self.tensors.values())
        return target


def read_contents(source: Path) -> Contents:
    data = source.read_bytes()
    version, n_tensors, n_pairs = struct.unpack_from("<IQQ", data, 4)
    assert data[:4] == b"GGUF"
    assert version == 3
    pairs: dict[str, bytes] = {}
    at = 24
    for _ in range(n_pairs):
        start = at
        key, at = _string(data, at)
        at = _skip_value(data, at)
        pairs[key] = data[start:at]
    found: list[tuple[str, tuple[int, ...], int, int]] = []
    for _ in range(n_tensors):
        name, at = _string(data, at)
        (n_dims,) = struct.unpack_from("<I", data, at)
        *shape, kind, offset = struct.unpack_from(f"<{n_dims}QIQ", data, at + 4)
        at += 4 + 8 * n_dims + 4 + 8
        found.append((name, tuple(shape), kind, offset))
    start = at + -at % ALIGNMENT
    starts = sorted(offset for *_, offset in found)
    end_of = dict(zip(starts, [*starts[1:], len(data) - start], strict=True))
    return Contents(
        pairs,
        {
            name: Entry(shape, kind, padded(data[start + offset : start + end_of[offset]]))
            for name, shape, kind, offset in found
        },
    )


def with_strings(source: Path, target: Path, changes: dict[str, str]) -> Path:
    """Writes `source` with these string values, changed or added, to `target`, which is returned."""
    contents = read_contents(source)
    changed = {key: _pack(key) + struct.pack("<I", STRING) + _pack(value) for key, value in changes.items()}
    return Contents({**contents.pairs, **changed}, contents.tensors).write(target)


def number(key: str, value: int) -> bytes:
    """A pair with a u32."""
    return _pack(key) + struct.pack("<II", UINT32, value)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)


def _string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    return data[at + 8 : at + 8 + length].decode(), at + 8 + length


def _pack(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _skip_value(data: bytes, at: int) -> int:
    """From the type of a value to what follows it."""
    (kind,) = struct.unpack_from("<I", data, at)
    return _skip(data, at + 4, kind)


def _skip(data: bytes, at: int, kind: int) -> int:
    if kind == STRING:
        return _string_end(data, at)
    if kind != ARRAY:
        return at + SIZES[kind]
    item, length = struct.unpack_from("<IQ", data, at)
    at += 12
    if item in SIZES:
        return at + SIZES[item] * length
    if item == STRING:  # 50,000 of them in a vocabulary
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(length):
            at += 8 + unpack(data, at)[0]
        return at
    for _ in range(length):
        at = _skip(data, at, item)
    return at


def _string_end(data: bytes, at: int) -> int:
    (length,) = struct.unpack_from("<Q", data, at)
    return int(at + 8 + length)
