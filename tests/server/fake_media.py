"""A desk that reads no media: it takes each source as told, and gives a small picture or a short sound of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamabox.engine.request import Picture, Sound
from llamabox.errors import LlamaboxError
from llamabox.media.desk import MediaDesk, Room
from llamabox.media.source import MediaSource
from llamabox.wire.text_config import MediaInfo

SEES_AND_HEARS = MediaInfo(has_vision=True, has_audio=True, audio_rate=16_000)

SOUND_OF_TEN = Sound(16_000, bytes(40))


def picture(n: int) -> Picture:
    """The picture that the desk makes of the data `n`."""
    return Picture(n, 1, bytes(3 * n))


class FakeMediaDesk:
    """Data that is a number becomes a picture so wide, other data ten samples of silence."""

    def __init__(self) -> None:
        self.read_sources: list[MediaSource] = []
        self.error: LlamaboxError | None = None

    async def read(self, sources: Sequence[MediaSource], info: MediaInfo, room: Room) -> list[Picture | Sound]:
        self.read_sources += sources
        if self.error is not None:
            raise self.error
        made = [picture(int(one.data)) if str(one.data).isdigit() else SOUND_OF_TEN for one in sources]
        for one in made:
            room.grow(len(one.pixels if isinstance(one, Picture) else one.samples))
        return made

    async def warm(self) -> None:
        """There is nothing to prepare."""

    async def close(self) -> None:
        """There is nothing to end."""


if TYPE_CHECKING:
    _desk: type[MediaDesk] = FakeMediaDesk
