"""Reading one file through a real child, and the memory that it is counted against."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llamabox.engine.request import Picture, Sound
from llamabox.errors import InvalidRequest
from llamabox.media.reader import MediaReader
from llamabox.media.source import MediaKind, MediaSource
from llamabox.wire.text_config import MediaInfo

FIELD = "messages[0].content[1].image_url"

ALL = MediaInfo(has_vision=True, has_audio=True, audio_rate=16_000)


class CountedRoom:
    """As much room as there is; it knows what is held."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self.most = 0

    def grow(self, n_bytes: int) -> None:
        self.n_bytes += n_bytes
        self.most = max(self.most, self.n_bytes)

    def shrink(self, n_bytes: int) -> None:
        self.n_bytes -= n_bytes
        assert self.n_bytes >= 0


def source(data: bytes | str, kind: MediaKind | None = None, field: str = FIELD) -> MediaSource:
    return MediaSource(kind=kind, data=data, field=field)


def read(
    reader: MediaReader, data: bytes | str, kind: MediaKind | None = None, info: MediaInfo = ALL
) -> Picture | Sound:
    """One file. The room holds its pixels or samples afterwards, and nothing if it cannot be read."""
    room = CountedRoom()
    try:
        (found,) = asyncio.run(reader.read([source(data, kind)], info, room))
    except InvalidRequest:
        assert room.n_bytes == 0
        raise
    assert room.n_bytes == len(found.pixels if isinstance(found, Picture) else found.samples)
    return found


def pixels(reader: MediaReader, data: bytes | str, info: MediaInfo = ALL) -> NDArray[np.uint8]:
    """Rows, columns and colours of a picture."""
    found = read(reader, data, "image", info)
    assert isinstance(found, Picture)
    return np.frombuffer(found.pixels, np.uint8).reshape(found.height, found.width, 3)


def samples(reader: MediaReader, data: bytes | str, info: MediaInfo = ALL) -> NDArray[Any]:
    found = read(reader, data, "audio", info)
    assert isinstance(found, Sound)
    assert found.rate == info.audio_rate
    return np.frombuffer(found.samples, "<f4")


def refusal(reader: MediaReader, data: bytes | str, kind: MediaKind | None = None, info: MediaInfo = ALL) -> str:
    """Why a file is refused. The field is named."""
    with pytest.raises(InvalidRequest, match=re.escape(f"Field '{FIELD}': ")) as caught:
        read(reader, data, kind, info)
    assert caught.value.field == FIELD
    return caught.value.message
