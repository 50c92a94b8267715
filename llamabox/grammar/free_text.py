"""Text in front of an answer's first call: most tokens of it leave the state of its grammar as it is."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np

from llamabox.engine.grammar import TokenMask

NO_TEXT = 0xFF
"""A byte that no text has, and each token has that is none."""


class FreeText:
    """Which tokens say nothing that the opening of a call could begin with. Shared, and never changed."""

    def __init__(self, opening: bytes, pieces: Seq[bytes], plain: bytes | None = None) -> None:
        """`opening` of a call; empty: a control token begins it. `pieces` are what tokens say; those that are no text
        have the byte NO_TEXT. `plain`: what is known.
        """
        self.opening = opening
        self.pieces = pieces
        if plain is None:
            plain = bytes(_is_whole(piece) and not (opening and opening[0] in piece) for piece in pieces)
        self.plain = plain
        self.none = bytes(len(pieces))

    def within(self, mask: TokenMask) -> FreeText:
        """The same with those alone of the plain tokens that a mask has."""
        allowed = np.unpackbits(mask.view(np.uint8), count=len(self.plain), bitorder="little")
        return FreeText(self.opening, self.pieces, (np.frombuffer(self.plain, np.uint8) & allowed).tobytes())


def _is_whole(piece: bytes) -> bool:
    """Whether it is a text by itself, without parts of characters."""
    try:
        return bool(piece.decode())
    except UnicodeDecodeError:
        return False


class FreeTextState:
    """Follows one text up to its first call.

    `plain` has a 1 for each token that may come and leaves the state of the grammar as it is, that of the beginning.
    `is_over`: a call has begun, and no token is plain from there on.
    """

    __slots__ = ("_free", "_tail", "is_over", "plain")

    def __init__(self, free: FreeText) -> None:
        self._free = free
        self._tail = b""  # the end of the text, where an opening or a character may have begun
        self.is_over = False
        self.plain = free.plain

    def copy(self) -> FreeTextState:
        """One that goes its own way from here."""
        copied = FreeTextState(self._free)
        copied._tail, copied.is_over, copied.plain = self._tail, self.is_over, self.plain
        return copied

    def take(self, token: int) -> None:
        """A token that the grammar has accepted, and that is not plain here."""
        if self.is_over:
            return
        free, piece = self._free, self._free.pieces[token]
        text = self._tail + piece
        self.is_over = NO_TEXT in piece or bool(free.opening and free.opening in text)
        if self.is_over or _is_cut(text) or _begins(free.opening, text):
            self._tail = text[-max(3, len(free.opening) - 1) :]
            self.plain = free.none
        else:
            self._tail = b""
            self.plain = free.plain


def _begins(opening: bytes, text: bytes) -> bool:
    """Whether the text ends with a beginning of the opening."""
    return any(text.endswith(opening[:n]) for n in range(1, len(opening)))


def _is_cut(text: bytes) -> bool:
    """Whether the text, which is UTF-8 so far, ends within a character."""
    for n, byte in enumerate(reversed(text[-3:]), 1):
        if byte >= 0xC0:
            return n < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
        if byte < 0x80:
            break
    return False
