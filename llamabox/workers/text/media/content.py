"""What the encoder makes rows of."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from llamabox.bindings.media.chunk import MediaChunk
from llamabox.bindings.media.projector import Piece, Projector
from llamabox.engine.request import Media, Picture, Prompt, PromptText, Sound, Words
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


@dataclass(frozen=True, slots=True)
class Unprepared:
    """The pictures and sounds of a prompt as they came, for when one of its chunks has to be prepared after all."""

    n_bytes: int
    """Of them, for each chunk of the prompt."""

    prepare: Callable[[bytes], MediaChunk]
    """Makes the chunk with this key. Raises InvalidRequest."""


class Content:
    """A chunk's prepared pixels or samples, or what they can be prepared from. Freed with the last reference to this.

    A request may be dropped in many places before the engine has it, on several threads; no other rule reaches all.
    """

    def __init__(self, chunk: MediaChunk, room: PreparedBytes, unprepared: Unprepared | None = None) -> None:
        """Takes `chunk` over, unless there is no room for it: that raises Unavailable.

        With `unprepared` it is a placeholder.
        """
        n_bytes = chunk.n_bytes if unprepared is None else max(chunk.n_bytes, unprepared.n_bytes)
        room.take(n_bytes)
        self._unprepared = unprepared
        self._owned = [chunk]
        self._end = weakref.finalize(self, _free, self._owned, room, n_bytes)
        self._end.atexit = False  # nobody closes chunks after the libraries' own end

    @property
    def is_sound(self) -> bool:
        return self._owned[0].is_sound

    @property
    def shape(self) -> bytes:
        """The sizes of what is encoded: see MediaChunk."""
        return self._owned[0].shape

    def prepared(self) -> MediaChunk:
        """The chunk with its pixels or samples, made now where that was put off. For the encoder's thread.

        Raises InvalidRequest.
        """
        if self._unprepared is not None:
            self._owned.append(self._unprepared.prepare(self._owned[0].key))
            self._unprepared = None
        return self._owned[-1]

    def close(self) -> None:
        """Free it now; idempotent."""
        self._end()


def _free(chunks: list[MediaChunk], room: PreparedBytes, n_bytes: int) -> None:
    for chunk in chunks:
        chunk.close()
    room.give_back(n_bytes)


def segments(
    pieces: Sequence[Piece], room: PreparedBytes, unprepared: Unprepared | None = None
) -> tuple[Prompt, dict[Media, Content]]:
    """A prompt of a projector's pieces, and the content of each chunk in it. Takes the chunks over.

    With `unprepared` they are placeholders for what can be made of that. Raises Unavailable where there is no room.
    """
    prompt = as_prompt(pieces)
    contents: dict[Media, Content] = {}
    try:
        for media, piece in zip(prompt, pieces, strict=True):
            if isinstance(media, Words) or isinstance(piece, tuple):
                continue
            if media in contents:
                piece.close()
            else:
                contents[media] = Content(piece, room, unprepared)
    except Unavailable:
        close_chunks(pieces)
        raise
    return prompt, contents


def as_prompt(pieces: Sequence[Piece]) -> Prompt:
    """The prompt that a projector's pieces are."""
    return tuple(
        Words(piece)
        if isinstance(piece, tuple)
        else Media(piece.key, piece.n_cells, piece.n_positions, piece.is_causal)
        for piece in pieces
    )


def close_chunks(pieces: Sequence[Piece]) -> None:
    """Free the chunks among a projector's pieces."""
    for piece in pieces:
        if not isinstance(piece, tuple):
            piece.close()


def prepared_later(projector: Projector, prompt: Prompt, content: PromptText) -> Unprepared:
    """The media of `content`, of which the projector made the chunks of `prompt`."""
    media = [part for part in content if isinstance(part, Picture | Sound)]
    n_chunks = len({part for part in prompt if isinstance(part, Media)})
    return Unprepared(sum(part.n_bytes for part in media) // n_chunks, partial(_prepare, projector, media))


def _prepare(projector: Projector, media: Sequence[Picture | Sound], key: bytes) -> MediaChunk:
    for part in media:
        pieces = projector.tokenize([part], add_special=False)
        found = next((piece for piece in pieces if not isinstance(piece, tuple) and piece.key == key), None)
        close_chunks([piece for piece in pieces if piece is not found])
        if found is not None:
            return found
    raise AssertionError("a chunk's content is not that of the prompt that it is in")
