"""What the encoder makes rows of."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence

from llamabox.bindings.media.chunk import MediaChunk
from llamabox.engine.request import Media, Prompt, Words
from llamabox.errors import Unavailable

MOST_BYTES = 2 << 30
"""Of what is prepared for all requests: four times the bodies that may wait by default, since pixels become floats."""


class PreparedBytes:
    """Bytes that the contents of all requests hold. Thread-safe.

    The size of a request says little: a picture of one pixel is prepared as one of the projector's size.
    """

    def __init__(self, limit: int = MOST_BYTES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self.n_held = 0

    def take(self, n_bytes: int) -> None:
        """Raises Unavailable where others hold so much that this does not fit. One alone always does."""
        with self._lock:
            if self.n_held and self.n_held + n_bytes > self._limit:
                raise Unavailable(
                    f"pictures and sound of requests that wait take {self.n_held >> 20} MiB of the {self._limit >> 20} "
                    "that they may; try again later",
                    retry_after=2,
                )
            self.n_held += n_bytes

    def give_back(self, n_bytes: int) -> None:
        with self._lock:
            self.n_held -= n_bytes


class Content:
    """A chunk's prepared pixels or samples, freed with the last reference to this.

    A request may be dropped in many places before the engine has it, on several threads; no other rule reaches all.
    """

    def __init__(self, chunk: MediaChunk, room: PreparedBytes) -> None:
        """Takes `chunk` over, unless there is no room for it: that raises Unavailable."""
        room.take(chunk.n_bytes)
        self.chunk = chunk
        self._end = weakref.finalize(self, _free, chunk, room)
        self._end.atexit = False  # nobody closes chunks after the libraries' own end

    def close(self) -> None:
        """Free it now; idempotent."""
        self._end()


def _free(chunk: MediaChunk, room: PreparedBytes) -> None:
    chunk.close()
    room.give_back(chunk.n_bytes)


def segments(
    pieces: Sequence[tuple[int, ...] | MediaChunk], room: PreparedBytes | None = None
) -> tuple[Prompt, dict[Media, Content]]:
    """A prompt of a projector's pieces, and the content of each chunk in it. Takes the chunks over.

    Raises Unavailable where there is no room for them. Without a `room` they are placeholders, which take none.
    """
    room = room or PreparedBytes()
    try:
        return _segments(pieces, room)
    except Unavailable:
        for piece in pieces:
            if not isinstance(piece, tuple):
                piece.close()
        raise


def _segments(
    pieces: Sequence[tuple[int, ...] | MediaChunk], room: PreparedBytes
) -> tuple[Prompt, dict[Media, Content]]:
    prompt: list[Words | Media] = []
    contents: dict[Media, Content] = {}
    for piece in pieces:
        if isinstance(piece, tuple):
            prompt.append(Words(piece))
            continue
        media = Media(piece.key, piece.n_cells, piece.n_positions, piece.is_causal)
        prompt.append(media)
        if media in contents:
            piece.close()
        else:
            contents[media] = Content(piece, room)
    return tuple(prompt), contents
