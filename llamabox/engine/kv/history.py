"""The cells of a sequence, in order: what it says, cell by cell, and where each cell stands."""

from __future__ import annotations

import hashlib
import secrets
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from llamabox.engine.batch import MediaRows
from llamabox.engine.request import LoraSet, Media, Prompt, Segment, Words

NO_POSITION = range(-1, 0)
"""Where the last cell of an empty history may stand, as the memory says it."""


@dataclass(frozen=True, slots=True)
class Span:
    """A media chunk inside a history: its cells begin at `start`. The history may end before all of them are there."""

    start: int
    media: Media

    @property
    def stop(self) -> int:
        return self.start + self.media.n_cells


class History:
    """An ordered list of cell keys with their positions. Not thread-safe; owned by the engine's thread.

    All its cells are computed with one LoRA set: under another, equal keys would mean different cells.

    A text token is one cell at one position, and its key is the token id. The cells of a media chunk have negative
    keys, which are equal only for the same cell of the same chunk. Text without media is the case without spans, and
    costs nothing for the others' sake.
    """

    __slots__ = ("_keys", "_spans", "lora")

    def __init__(self, tokens: Iterable[int] = (), lora: LoraSet = ()) -> None:
        """A history of text alone."""
        self.lora = lora
        self._keys = array("q", tokens)
        self._spans: list[Span] = []

    @classmethod
    def of(cls, prompt: Prompt, lora: LoraSet = ()) -> History:
        """The cells of `prompt`, computed with the set `lora`."""
        history = cls(lora=lora)
        for segment in prompt:
            history.add(segment)
        return history

    def __len__(self) -> int:
        """Number of cells."""
        return len(self._keys)

    @property
    def spans(self) -> tuple[Span, ...]:
        """Its media chunks in order; the last one may reach beyond its end."""
        return tuple(self._spans)

    @property
    def is_text(self) -> bool:
        """Whether no cell is of a media chunk."""
        return not self._spans

    @property
    def n_positions(self) -> int:
        """Number of positions, which is the position of the next cell, or of the chunk that the next cell goes on."""
        return self.position(len(self._keys))

    @property
    def last_positions(self) -> range:
        """Where the last cell may stand: at one position behind text; behind media the model decides which it is."""
        n_cells = len(self._keys)
        if not n_cells:
            return NO_POSITION
        if self._spans and n_cells <= self._spans[-1].stop:
            first = self.position(self._spans[-1].start)
            return range(first, first + self._spans[-1].media.n_positions)
        last = self.position(n_cells - 1)
        return range(last, last + 1)

    def position(self, cell: int) -> int:
        """Position of `cell`, 0 <= cell <= len. Inside a media chunk it is the chunk's first position."""
        surplus = 0
        for span in self._spans:
            if cell >= span.stop:
                surplus += span.media.n_cells - span.media.n_positions
            elif cell > span.start:
                surplus += cell - span.start
        return cell - surplus

    def add(self, segment: Segment) -> None:
        """Put a whole segment at the end."""
        if isinstance(segment, Words):
            self._keys.extend(segment.tokens)
        else:
            self._spans.append(Span(len(self._keys), segment))
            self._keys.extend(_cell_keys(segment))

    def append(self, token: int) -> None:
        self._keys.append(token)

    def extend(self, tokens: Iterable[int]) -> None:
        self._keys.extend(tokens)

    def copy(self) -> History:
        """One that changes by itself."""
        copied = History(lora=self.lora)
        copied.append_from(self, 0, len(self._keys))
        return copied

    def keys(self, start: int = 0, stop: int | None = None) -> list[int]:
        """A copy of the keys in [start, stop)."""
        return self._keys[start:stop].tolist()

    def key_array(self, start: int = 0, stop: int | None = None) -> array[int]:
        """A copy of the keys in [start, stop) as an array."""
        return self._keys[start:stop]

    @property
    def live_keys(self) -> array[int]:
        """The keys themselves, which grow and shrink with the history: to be read only, and held by no view."""
        return self._keys

    def key(self, cell: int) -> int:
        return self._keys[cell]

    def rows(self, start: int, stop: int) -> list[tuple[int, list[int] | MediaRows]]:
        """What a batch computes for cells [start, stop): stretches of tokens or of one media chunk, with positions.

        The position is that of the first token, or that of the chunk's first cell, wherever in it the stretch begins.
        """
        if not self._spans:
            return [(start, self._keys[start:stop].tolist())]
        found: list[tuple[int, list[int] | MediaRows]] = []
        for span in self._spans:
            if start < min(span.start, stop):
                found.append((self.position(start), self._keys[start : min(span.start, stop)].tolist()))
                start = min(span.start, stop)
            if span.start <= start < min(span.stop, stop):
                end = min(span.stop, stop)
                rows = MediaRows(span.media, start - span.start, end - span.start)
                found.append((self.position(span.start), rows))
                start = end
        if start < stop:
            found.append((self.position(start), self._keys[start:stop].tolist()))
        return found

    def places(self, tokens: frozenset[int]) -> list[int]:
        """Where one of `tokens` stands."""
        if not tokens:
            return []
        found: list[int] = np.flatnonzero(np.isin(self._view(), list(tokens))).tolist()
        return found

    def stretch_end(self, start: int) -> int:
        """Where the text or the media chunk ends that the cell `start` is of. The end of the history has none."""
        for span in self._spans:
            if start < span.stop:
                return span.stop if span.start <= start else span.start
        return len(self._keys)

    def media_at(self, cell: int) -> Media | None:
        """The media chunk that `cell` is of, if it is of one."""
        return next((span.media for span in self._spans if span.start <= cell < span.stop), None)

    def media_from(self, start: int) -> list[Media]:
        """The media chunks, in order, that have a cell at `start` or behind it."""
        return [span.media for span in self._spans if span.stop > start]

    def is_exclusive(self, cell: int) -> bool:
        """Whether `cell` is of a media chunk that is not causal."""
        return any(span.start <= cell < span.stop and not span.media.is_causal for span in self._spans)

    def start_for(self, n_cells: int, n_least: int) -> int:
        """The largest number of leading cells, up to `n_cells`, from which the rest may be computed.

        It cuts no media chunk, and leaves `n_least` cells or more of the text that it ends in, or all of that.
        """
        start = self.whole(n_cells)
        end = self.stretch_end(start)
        if end - start >= n_least or any(span.start == start for span in self._spans):
            return start
        begin = max((span.stop for span in self._spans if span.stop <= start), default=0)
        return max(begin, end - n_least)

    def append_from(self, other: History, start: int, stop: int) -> None:
        """Add cells [start, stop) of `other`. An empty history takes over its LoRA set.

        A media chunk may be cut at `stop`; at `start` only if this history ends with what is before the cut.
        """
        assert not self._keys or self.lora == other.lora, "cells of two LoRA sets in one history"
        self.lora = other.lora
        offset = len(self._keys) - start
        self._keys.extend(other._keys[start:stop])
        if other._spans:
            self._spans += [
                Span(span.start + offset, span.media) for span in other._spans if start <= span.start < stop
            ]

    def truncate(self, n_cells: int) -> None:
        """Keep the first `n_cells` cells; `n_cells` must not lie inside a media chunk."""
        assert self.whole(n_cells) == n_cells
        del self._keys[n_cells:]
        if self._spans:
            self._spans = [span for span in self._spans if span.start < n_cells]

    def discard(self, start: int, stop: int) -> None:
        """Drop cells [start, stop), media chunks only whole, and close the gap."""
        assert self.widened(start, stop) == (start, stop)
        del self._keys[start:stop]
        if self._spans:
            before = [span for span in self._spans if span.start < start]
            behind = [Span(span.start - (stop - start), span.media) for span in self._spans if span.start >= stop]
            self._spans = before + behind

    def whole(self, n_cells: int) -> int:
        """The largest number of cells up to `n_cells` that does not cut a media chunk."""
        for span in self._spans:
            if span.start < n_cells < span.stop:
                return span.start
        return n_cells

    def widened(self, start: int, stop: int) -> tuple[int, int]:
        """The smallest range around the cells [start, stop) that does not cut a media chunk."""
        for span in self._spans:
            if span.start < stop < span.stop:
                stop = span.stop
        return self.whole(start), stop

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
        assert self.is_text
        if not len(self._keys) or self._view().max() > sys.maxunicode:
            return ""
        return self._view().astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")

    def _view(self) -> NDArray[np.int64]:
        # Must not outlive the statement it is made in: an array cannot grow while a view of it is alive.
        return np.frombuffer(self._keys, dtype=np.int64)


@cache
def _secret() -> bytes:
    return secrets.token_bytes(16)


def _cell_keys(media: Media) -> range:
    """A key for each cell of a chunk: negative, and equal only for the same cell of an equal chunk.

    62 bits, keyed with a secret of this process: nobody can make two images of which one passes for the other.
    """
    name = repr((media.key, media.n_cells, media.n_positions, media.is_causal)).encode()
    digest = hashlib.blake2b(name, digest_size=8, key=_secret()).digest()
    first = -1 - (int.from_bytes(digest, "big") >> 2)
    return range(first, first - media.n_cells, -1)
