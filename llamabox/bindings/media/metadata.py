"""What libmtmd writes down of a chunk without its content: kind and sizes."""

from __future__ import annotations

import struct
from typing import Any

from llamabox.bindings.ffi import Native

VERSION = 2
"""MTMD_SERIALIZATION_VERSION of mtmd.cpp, whose numbers `n_pixels` reads."""

ENTRY = struct.Struct("<BBiii")
"""Of a prepared picture: two flags, padding, width, height."""


def shape(native: Native, chunk: Any) -> bytes:
    """Kind and sizes of a chunk. Its id, which tells chunks apart, is left out.

    libmtmd itself takes pictures of as many tokens for equal ones, a lying and a standing one too, and gives one of
    them rows that are none.
    """
    before, behind = _around_id(native, chunk)
    return before + behind


def n_pixels(native: Native, chunk: Any) -> int:
    """Pixels that a picture's chunk has been made into. 0 for other chunks, and where libmtmd writes in another way."""
    before, behind = _around_id(native, chunk)
    if native.lib.mtmd_input_chunk_get_tokens_image(chunk) == native.ffi.NULL or before[:8] != struct.pack(
        "<Q", VERSION
    ):
        return 0
    (count,) = struct.unpack_from("<Q", behind, 1)
    entries = ENTRY.iter_unpack(behind[9 : 9 + ENTRY.size * count])
    return sum(width * height for *_, width, height in entries)


def _around_id(native: Native, chunk: Any) -> tuple[bytes, bytes]:
    """What is written before a chunk's id, which must not be empty, and behind it."""
    ffi, lib = native.ffi, native.lib
    size = ffi.new("size_t *")
    assert lib.mtmd_input_chunk_save(chunk, ffi.NULL, 0, size) == 0
    saved = ffi.new("char[]", size[0])
    assert lib.mtmd_input_chunk_save(chunk, saved, size[0], size) == 0
    name = ffi.string(lib.mtmd_input_chunk_get_id(chunk))
    before, found, behind = bytes(ffi.buffer(saved, size[0])).partition(struct.pack("<Q", len(name)) + name)
    assert name, "a chunk without an id"
    assert found
    return before, behind
