"""The agreement between the desk and the process of sandbox.py: what a question asks, and what it may cost."""

from __future__ import annotations

import dataclasses
from typing import Any

from llamabox.media.source import MediaKind

MEMORY = 6 << 28
"""Bytes of address space of the process: 1.5 GiB. The largest WebP pictures need it, others half of it."""

CPU_SECONDS = 15.0
"""Processor time of the process for one file. The largest pictures take two or three."""

MAX_PIXELS = 1 << 26
"""Pixels of a picture as its file says: 67 megapixels, more than phones take."""

MAX_RATIO = 200
"""Of a picture's longer side to the shorter, as it is handed on. No projector sees more in a longer stripe."""

MAX_USEFUL_PIXELS = 1 << 24
"""Pixels of a picture as it is handed on, whatever the model could take: 48 MiB."""

MAX_SECONDS = 1800
"""Seconds of a recording."""

FORMATS: dict[MediaKind, tuple[str, ...]] = {
    "image": ("PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF", "AVIF"),
    "audio": ("WAV", "FLAC", "MP3", "OGG"),
}
"""What is read, by kind."""

NOUNS: dict[MediaKind, str] = {"image": "a picture", "audio": "a recording"}


class Unreadable(Exception):
    """Media that cannot be had. Its text goes on where the field's name stands before it: `must be …`, `is …`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The first line of a question. Behind it stand the file's bytes, or the text that they are written in."""

    kinds: tuple[MediaKind, ...]  # what it may be
    is_text: bool = False  # a data URI or base64, not the file itself
    rate: int = 0  # samples a second that a recording is to have
    max_side: int = 0  # pixels of a picture's width and height; 0: no bound
    max_pixels: int = MAX_USEFUL_PIXELS  # of a picture
    exactly: tuple[int, int] | None = None  # width and height of a picture, whatever its own are
    as_mask: bool = False  # one channel, white where something is to be drawn

    @classmethod
    def of(cls, call: dict[str, Any]) -> Wanted:
        """From the line's JSON."""
        size = call["exactly"]
        return cls(**{**call, "kinds": tuple(call["kinds"]), "exactly": size and tuple(size)})


def listed(words: tuple[str, ...]) -> str:
    """`PNG, JPEG or GIF`."""
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def readable(kinds: tuple[MediaKind, ...]) -> str:
    """`a picture (PNG, … or AVIF)`, or both kinds."""
    return " or ".join(f"{NOUNS[kind]} ({listed(FORMATS[kind])})" for kind in kinds)
