"""A copy of a GGUF file with other metadata: text values changed or added, everything else byte for byte the same.

Layout (GGUF 3, little endian): "GGUF", u32 version, u64 tensors, u64 pairs; then the pairs, each `string key | u32 type
| value`; then the tensors' descriptions; then, at the next multiple of the alignment, their data. Offsets of tensors
count from the start of the data, so the header may change its length.
"""

from __future__ import annotations

import struct
from pathlib import Path

STRING, ARRAY = 8, 9
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
ALIGNMENT = 32


def with_strings(source: Path, target: Path, changes: dict[str, str]) -> Path:
    """Writes `source` with these string values to `target`, which is returned."""
    data = source.read_bytes()
    version, n_tensors, n_pairs = struct.unpack_from("<IQQ", data, 4)
    assert data[:4] == b"GGUF"
    assert version == 3
    pairs: list[bytes] = []
    at = 24
    for _ in range(n_pairs):
        start = at
        key, at = _string(data, at)
        at = _skip_value(data, at)
        if key not in changes:
            pairs.append(data[start:at])
    pairs += [_pack(key) + struct.pack("<I", STRING) + _pack(value) for key, value in changes.items()]
    tensors = at
    for _ in range(n_tensors):
        _, at = _string(data, at)
        (n_dims,) = struct.unpack_from("<I", data, at)
        at += 4 + 8 * n_dims + 4 + 8
    header = b"GGUF" + struct.pack("<IQQ", version, n_tensors, len(pairs)) + b"".join(pairs) + data[tensors:at]
    with target.open("wb") as out:
        out.write(header + bytes(-len(header) % ALIGNMENT))
        out.write(data[at + -at % ALIGNMENT :])
    return target


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
    for _ in range(length):
        at = _skip(data, at, item)
    return at


def _string_end(data: bytes, at: int) -> int:
    (length,) = struct.unpack_from("<Q", data, at)
    return int(at + 8 + length)
