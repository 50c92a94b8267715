"""What a file is, by its first bytes. Nothing that a client says about a file is believed."""

from __future__ import annotations

from collections.abc import Callable

from llamabox.media.source import MediaKind

Begins = Callable[[bytes], bool]

N_BYTES = 64
"""All that is looked at."""


def _starts(*beginnings: bytes) -> Begins:
    return lambda head: head.startswith(beginnings)


def _holds(*forms: bytes, start: tuple[bytes, ...] = (b"RIFF",)) -> Begins:
    """A container of the RIFF family with one of these forms inside."""
    return lambda head: head.startswith(start) and head[8:12] in forms


def _branded(*brands: bytes) -> Begins:
    """A file of the MP4 family with one of these brands, its own or one that it can be read as."""

    def begins(head: bytes) -> bool:
        length = min(int.from_bytes(head[:4], "big"), len(head))
        named = [head[8:12], *(head[at : at + 4] for at in range(16, length, 4))]
        return head[4:8] == b"ftyp" and any(brand in brands for brand in named)

    return begins


def _is_mp3(head: bytes) -> bool:
    """A frame's header, which has neither a reserved layer (AAC's) nor a reserved bit rate or sample rate."""
    if head.startswith(b"ID3"):
        return True
    return (
        len(head) >= 4
        and head[0] == 0xFF
        and head[1] & 0xE0 == 0xE0
        and head[1] & 0x18 != 0x08
        and head[1] & 0x06 != 0
        and head[2] & 0xF0 != 0xF0
        and head[2] & 0x0C != 0x0C
    )


SIGNATURES: tuple[tuple[str, MediaKind, Begins], ...] = (
    ("PNG", "image", _starts(b"\x89PNG\r\n\x1a\n")),
    ("JPEG", "image", _starts(b"\xff\xd8\xff")),
    ("WebP", "image", _holds(b"WEBP")),
    ("GIF", "image", _starts(b"GIF87a", b"GIF89a")),
    ("BMP", "image", _starts(b"BM")),
    ("TIFF", "image", _starts(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ("AVIF", "image", _branded(b"avif", b"avis")),
    ("WAV", "audio", _holds(b"WAVE", start=(b"RIFF", b"RIFX", b"RF64"))),
    ("FLAC", "audio", _starts(b"fLaC")),
    ("OGG", "audio", _starts(b"OggS")),
    ("MP3", "audio", _is_mp3),
)
"""The formats that are read."""

OTHERS: tuple[tuple[str, Begins], ...] = (
    ("a HEIC picture", _branded(b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1")),
    ("an MP4 or M4A file", lambda head: head[4:8] == b"ftyp"),
    ("a WebM or Matroska file", _starts(b"\x1aE\xdf\xa3")),
    ("an AIFF recording", _holds(b"AIFF", b"AIFC", start=(b"FORM",))),
    ("an AAC recording", _starts(b"\xff\xf1", b"\xff\xf9")),
    ("a JPEG XL picture", _starts(b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    ("a JPEG 2000 picture", _starts(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")),
    ("a PDF file", _starts(b"%PDF")),
    ("an SVG or HTML file", lambda head: head.lstrip()[:1] == b"<"),
    ("JSON", lambda head: head.lstrip()[:1] in (b"{", b"[")),
)
"""Files that clients send nevertheless, in words for the refusal."""


def format_of(data: bytes | bytearray) -> tuple[str, MediaKind] | None:
    """The format of a file and its kind; None where it is none that is read."""
    head = bytes(data[:N_BYTES])
    return next(((name, kind) for name, kind, begins in SIGNATURES if begins(head)), None)


def other(data: bytes | bytearray) -> str | None:
    """What a file is that is not read, if that is known."""
    head = bytes(data[:N_BYTES])
    return next((what for what, begins in OTHERS if begins(head)), None)
