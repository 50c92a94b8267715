"""What the encoder makes rows of."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from llamabox.bindings.media.chunk import MediaChunk
from llamabox.engine.request import Media, Prompt, Words


class Content:
    """A chunk's prepared pixels or samples, freed with the last reference to this.

    A request may be dropped in many places before the engine has it, on several threads; no other rule reaches all.
    """

    def __init__(self, chunk: MediaChunk) -> None:
        """Takes `chunk` over."""
        self.chunk = chunk
        self._end = weakref.finalize(self, chunk.close)
        self._end.atexit = False  # nobody closes chunks after the libraries' own end

    def close(self) -> None:
        """Free it now; idempotent."""
        self._end()


def segments(pieces: Sequence[tuple[int, ...] | MediaChunk]) -> tuple[Prompt, dict[Media, Content]]:
    """A prompt of a projector's pieces, and the content of each chunk in it. Takes the chunks over."""
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
            contents[media] = Content(piece)
    return tuple(prompt), contents
