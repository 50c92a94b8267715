"""The seam between requests and the reading of their media: `reader.py` reads them, tests have a fake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from llamabox.engine.request import Picture, Sound
from llamabox.media.source import MediaSource
from llamabox.wire.text_config import MediaInfo


class Room(Protocol):
    """Bytes that a request holds, counted against those of all requests."""

    def grow(self, n_bytes: int) -> None:
        """Hold more bytes. Raises Unavailable where there is no room for them."""

    def shrink(self, n_bytes: int) -> None:
        """Give some of them back."""


class MediaDesk(Protocol):
    """Reads media. Belongs to the event loop; a call that is cancelled ends what it began."""

    async def read(self, sources: Sequence[MediaSource], info: MediaInfo, room: Room) -> list[Picture | Sound]:
        """The media in order, decoded to what the model can use; `room` holds their bytes afterwards.

        Raises InvalidRequest, which names a source's field and says what would be right; Unavailable for want of room;
        ServerFault where nothing can be decoded.
        """

    async def warm(self) -> None:
        """Prepare for the first picture. Never raises."""

    async def close(self) -> None:
        """End what was started. Idempotent."""
