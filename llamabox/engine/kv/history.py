"""The cells of a sequence, in order: what it says, cell by cell, and where each cell stands."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamabox.engine.request import LoraSet


@dataclass(frozen=True, slots=True)
class MediaSpan:
    """A media chunk inside a history: indivisible, `n_cells` cells from `start` on that take `n_positions` positions.

    The two numbers differ under M-RoPE, where an image takes fewer positions than cells.
    """

    start: int
    n_cells: int
    n_positions: int


class History:
    """An ordered list of cell keys with their positions. Not thread-safe; owned by the engine's thread.

    All its cells are computed with one LoRA set: under another, equal keys would mean different cells.

    A text token is one cell at one position and its key is the token id. A media chunk's cells have negative keys made
    from its content hash, so that equal keys mean equal content. Plain text is the case without spans.
    """

    __slots__ = ("_keys", "_spans", "lora")

    def __init__(self, tokens: Iterable[int] = (), lora: LoraSet = ()) -> None:
        self.lora = lora
        self._keys = array("q", tokens)
        self._spans: list[MediaSpan] = []

    def __len__(self) -> int:
        """Number of cells."""
        return len(self._keys)

    @property
    def has_media(self) -> bool:
        return bool(self._spans)

    @property
    def n_positions(self) -> int:
        """Number of positions, which is the position of the next cell."""
        return self.position(len(self._keys))

    def position(self, cell: int) -> int:
        """Position of `cell`, 0 <= cell <= len. Cells of one media chunk share the chunk's first position."""
        surplus = 0
        for span in self._spans:
            if cell >= span.start + span.n_cells:
                surplus += span.n_cells - span.n_positions
            elif cell > span.start:
                surplus += cell - span.start
        return cell - surplus

    def append(self, token: int) -> None:
        self._keys.append(token)

    def extend(self, tokens: Iterable[int]) -> None:
        self._keys.extend(tokens)

    def extend_media(self, keys: Iterable[int], n_positions: int) -> None:
        """Add one media chunk; `keys` has one negative key per cell."""
        start = len(self._keys)
        self._keys.extend(keys)
        self._spans.append(MediaSpan(start, len(self._keys) - start, n_positions))

    def keys(self, start: int = 0, stop: int | None = None) -> list[int]:
        """A copy of the keys in [start, stop)."""
        return self._keys[start:stop].tolist()

    def run(self, start: int, stop: int) -> array[int]:
        """The same as an array."""
        return self._keys[start:stop]

    def key(self, cell: int) -> int:
        return self._keys[cell]

    def append_from(self, other: History, start: int, stop: int) -> None:
        """Add cells [start, stop) of `other`; media chunks go over whole. An empty history takes over its LoRA set."""
        assert not self._keys or self.lora == other.lora, "cells of two LoRA sets in one history"
        self.lora = other.lora
        offset = len(self._keys) - start
        self._keys.extend(other._keys[start:stop])
        if other._spans:
            self._spans.extend(
                MediaSpan(span.start + offset, span.n_cells, span.n_positions)
                for span in other._spans
                if start <= span.start and span.start + span.n_cells <= stop
            )

    def truncate(self, n_cells: int) -> None:
        """Keep the first `n_cells` cells; `n_cells` must not lie inside a media chunk."""
        assert self.whole(n_cells) == n_cells
        del self._keys[n_cells:]
        self._spans = [span for span in self._spans if span.start < n_cells]

    def discard(self, start: int, stop: int) -> None:
        """Drop cells [start, stop), text only, and close the gap."""
        assert not self._spans, "a history with media cannot shift"
        del self._keys[start:stop]

    def whole(self, n_cells: int) -> int:
        """The largest number of cells up to `n_cells` that does not cut a media chunk."""
        for span in self._spans:
            if span.start < n_cells < span.start + span.n_cells:
                return span.start
        return n_cells

    def common_prefix(self, other: History) -> int:
        """Number of leading cells that are the same in both, media chunks whole. None under different LoRA sets."""
        return self.whole(self.common_run(0, other, 0))

    def common_run(self, start: int, other: History, other_start: int) -> int:
        """Number of cells from `start` on that are the same as those of `other` from `other_start` on."""
        if self.lora != other.lora:
            return 0
        limit = min(len(self._keys) - start, len(other._keys) - other_start)
        if limit <= 0:
            return 0
        differs = self._view()[start : start + limit] != other._view()[other_start : other_start + limit]
        first = int(differs.argmax())
        return first if differs[first] else limit

    def as_text(self) -> str:
        """Text cells as a string of one character each, which Python searches in linear time whatever is in it.

        Empty where a token id is beyond the last character, 0x10ffff: several times the largest vocabulary there is.
        """
        if not len(self._keys) or self._view().max() > sys.maxunicode:
            return ""
        assert not self._spans
        return self._view().astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")

    def _view(self) -> NDArray[np.int64]:
        # Must not outlive the statement it is made in: an array cannot grow while a view of it is alive.
        return np.frombuffer(self._keys, dtype=np.int64)
