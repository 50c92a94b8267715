"""Reading the headers of model files before libstable-diffusion does, which crashes on some that are cut off."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path

from llamabox.bindings.files.gguf import MAGIC, read_header
from llamabox.bindings.files.kind import known_start
from llamabox.errors import ModelLoadError
from llamabox.imaging.families import Shapes

# ggml type → elements in a block, bytes of a block (ggml.c of the version inside libstable-diffusion, which does not
# export its own table).
TYPE_SIZES = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36),
}  # fmt: skip

DTYPE_SIZES = {
    "F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip

MAX_SAFETENSORS_HEADER = 100_000_000
"""Bytes; the format's own limit."""


def tensors_of(path: Path) -> Shapes | None:
    """The tensors of a GGUF or safetensors file; None for a pickled checkpoint, whose list is a program.

    Raises ModelLoadError with one line: not there, not a file, empty, cut off, of no known kind.
    """
    try:
        if not path.exists():
            raise fault(path, "there is no such file")
        if not path.is_file():
            raise fault(path, "it is not a regular file")
        n_bytes = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(32)
    except OSError as exc:
        raise fault(path, exc.strerror or str(exc)) from exc
    if not start:
        raise fault(path, "it is empty")
    if start.startswith(MAGIC):
        header = read_header(path, TYPE_SIZES, for_text=False)
        return {name: tensor.shape for name, tensor in header.tensors.items()}
    if start[8:9] == b"{":
        return _safetensors(path, n_bytes)
    if start.startswith(b"\x80") or zipfile.is_zipfile(path):
        return None
    if (what := known_start(start)) is not None:
        raise fault(path, f"it is no model but {what}")
    raise fault(path, "it is neither a GGUF nor a safetensors file nor a checkpoint")


def fault(path: Path, what: str) -> ModelLoadError:
    return ModelLoadError(f"{path} cannot be loaded: {what}")


def _safetensors(path: Path, n_bytes: int) -> Shapes:
    """`u64 length | JSON header | data`; the header gives each tensor's place in the data."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(n_bytes - 8, MAX_SAFETENSORS_HEADER):
            raise fault(path, f"it is cut off: its header is said to have {length} bytes, the file has {n_bytes}")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        shapes = {name: tuple(int(side) for side in entry["shape"]) for name, entry in tensors.items()}
        ends = {name: (entry["dtype"], *map(int, entry["data_offsets"])) for name, entry in tensors.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise fault(path, "its safetensors header is not what the format says") from exc
    room = n_bytes - 8 - length
    for name, (dtype, start, end) in ends.items():
        if end > room:
            raise fault(path, f"it is cut off: tensor {name!r} ends at {end} bytes of data, but there are {room}")
        if start < 0 or min(shapes[name], default=1) < 0 or len(shapes[name]) > 5:
            raise fault(path, f"tensor {name!r} has an impossible place or shape")
        if dtype in DTYPE_SIZES and math.prod(shapes[name]) * DTYPE_SIZES[dtype] != end - start:
            raise fault(path, f"tensor {name!r} has {end - start} bytes, which does not fit its shape")
    return {name: shape[::-1] for name, shape in shapes.items()}
