"""Where the bytes of a picture or of a recording come from: a value that parsers make and the desk reads."""

from __future__ import annotations

import dataclasses
from typing import Literal

MediaKind = Literal["image", "audio"]

MAX_SOURCES = 128
"""Media of one request. A URL has 30 bytes, and may bring 25 MiB."""

ONE_TOO_MANY = f"is one too many: a request may have {MAX_SOURCES} media"
"""What is said of the source behind them."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MediaSource:
    """One picture or recording as a request names it."""

    kind: MediaKind | None  # None: the bytes say it
    data: str | bytes = dataclasses.field(repr=False)  # a URL, a data URI or base64; bytes: the file itself
    field: str  # of the request, for errors
    max_side: int | None = None  # pixels: a picture is made no wider and no higher than this
