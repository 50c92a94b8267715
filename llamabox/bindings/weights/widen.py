"""Half-precision matrices as float32: ggml multiplies those faster with AVX-512, having nothing to convert.

It is of use where the kernels of native/added do not pack them (`--no-repack`). Measured with a MiniLM on two cores
with AVX-512: 72 vectors a second from f16, 87 from the same numbers as f32. With AVX2 alone the numbers' size counts
for more: a text of 60 words took a core 24.2 ms from f16, 29.6 from f32.
"""

from __future__ import annotations

import os
import platform
import struct
from pathlib import Path

import numpy as np

from llamabox.bindings.files.gguf import Header, Tensor

F32, F16 = 0, 1
"""GGML_TYPE_*: part of the file format."""


def wideable(header: Header) -> dict[str, Tensor]:
    """The half-precision matrices of a model's layers. Tables that are looked up row by row gain nothing."""
    found = header.tensors.items()
    return {
        name: one
        for name, one in found
        if one.kind == F16 and name.startswith("blk.") and len(one.shape) == 2 and 1 not in one.shape
    }


def widened(path: Path, header: Header, budget: int) -> int | None:
    """A file in memory: the same model, with those matrices as float32. Returns its descriptor, to be closed.

    None where that would take more than `budget` bytes in addition, or is of no use, or the system has no such files.
    """
    wide = wideable(header)
    n_more = sum(tensor.n_bytes for tensor in wide.values())
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    if not wide or n_more > budget or not is_x86 or header.number("split.count") or not hasattr(os, "memfd_create"):
        return None
    descriptor = os.memfd_create(path.name)
    with (
        path.open("rb") as file,
        open(descriptor, "wb", closefd=False) as out,
    ):
        out.write(file.read(header.entries_start) + b"".join(_entries(header, wide)))
        out.write(bytes(-out.tell() % header.alignment))
        for name, tensor in header.tensors.items():
            file.seek(header.data_start + tensor.offset)
            raw = file.read(tensor.n_bytes)
            out.write(np.frombuffer(raw, "<f2").astype("<f4").tobytes() if name in wide else raw)
            out.write(bytes(-out.tell() % header.alignment))
    return descriptor


def _entries(header: Header, wide: dict[str, Tensor]) -> list[bytes]:
    """`name | u32 n_dims | i64 lengths | u32 type | u64 offset` of each tensor, in the order of their data."""
    entries = []
    offset = 0
    for name, tensor in header.tensors.items():
        raw_name = name.encode()
        kind, n_bytes = (F32, 2 * tensor.n_bytes) if name in wide else (tensor.kind, tensor.n_bytes)
        n_dims = len(tensor.shape)
        entries.append(
            struct.pack("<Q", len(raw_name))
            + raw_name
            + struct.pack(f"<I{n_dims}qIQ", n_dims, *tensor.shape, kind, offset)
        )
        offset += -(-n_bytes // header.alignment) * header.alignment
    return entries
