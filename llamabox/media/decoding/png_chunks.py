"""A PNG file without the chunks that its pixels do not need.

The rest - colour profiles, texts, previews, animation - may be as large as its writer liked. Pillow inflates it, and
refuses the whole picture where that is more than it likes; ComfyUI's texts and the profiles of calibrated screens are.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MAX_CHUNKS = 1 << 17
"""Chunks of a file. Encoders write some kilobytes into each; more chunks are an attack on our time."""

MAX_TURN = 1 << 16
"""Bytes of a chunk that may say how the picture is turned."""

NEEDED = (b"IHDR", b"PLTE", b"IDAT", b"IEND")

TURNING = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"XML:com.adobe.xmp\0")
"""Beginnings of the texts in which some writers put EXIF's orientation."""

GREY, RGB = 0, 2


def bare(data: bytes) -> bytes:
    """A PNG file with the chunks that its pixels need, up to where it is damaged. Other files come back whole.

    Raises ValueError for more chunks than any encoder writes.
    """
    if not data.startswith(SIGNATURE):
        return data
    return b"".join([SIGNATURE, *_kept(data)])


def _kept(data: bytes) -> Iterator[bytes]:
    at, header, n_chunks = len(SIGNATURE), b"", 0
    view = memoryview(data)
    while at + 12 <= len(data):
        n_chunks += 1
        if n_chunks > MAX_CHUNKS:
            raise ValueError(f"it has more than {MAX_CHUNKS} chunks")
        (length,) = struct.unpack_from(">I", data, at)
        name, start, end = bytes(view[at + 4 : at + 8]), at + 8, at + 12 + length
        if name == b"IHDR":
            header = bytes(view[start : start + length])
        if name in NEEDED or (name == b"eXIf" and length <= MAX_TURN):
            yield bytes(view[at:end])
        elif name == b"tRNS":
            yield _transparent(header, bytes(view[start : end - 4]))
        elif name in (b"tEXt", b"zTXt", b"iTXt") and length <= MAX_TURN:
            text = bytes(view[start : end - 4])
            if text.startswith(TURNING) and _is_small(name, text):
                yield bytes(view[at:end])
        if name == b"IEND":
            return
        at = end


def _is_small(name: bytes, text: bytes) -> bool:
    """Whether a text inflates to at most MAX_TURN bytes."""
    _, _, rest = text.partition(b"\0")
    if name == b"iTXt":
        return rest[:1] == b"\0"
    if name == b"tEXt":
        return True
    inflate = zlib.decompressobj()
    try:
        inflate.decompress(rest[1:], MAX_TURN)
    except zlib.error:
        return False
    return not inflate.unconsumed_tail


def _transparent(header: bytes, values: bytes) -> bytes:
    """The colour that stands for transparent, at the depth that Pillow gives the pixels: it does not scale it."""
    if len(header) >= 10:
        depth, kind = header[8], header[9]
        if kind == GREY and depth in (2, 4) and len(values) == 2:
            values = struct.pack(">H", int.from_bytes(values, "big") * 255 // ((1 << depth) - 1))
        elif kind == RGB and depth == 16 and len(values) == 6:
            values = struct.pack(">3H", *(value >> 8 for value in struct.unpack(">3H", values)))
    return struct.pack(">I", len(values)) + b"tRNS" + values + struct.pack(">I", zlib.crc32(b"tRNS" + values))
