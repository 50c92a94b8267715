"""Where the grams of a text were seen last."""

from __future__ import annotations

from array import array

import numpy as np

from llamabox.engine.drafting.drafter import NEW
from llamabox.engine.drafting.text.grams import LENGTHS, Grams, of_array

MAX_MATCH = 64
"""Longer matches are not measured: none promises more than one of this length."""

WIDEST_FIRST = tuple(zip(LENGTHS, range(len(LENGTHS)), strict=True))[::-1]
BLOCKS = (32, 16, 8)
HABIT_LEVEL = 1
HABIT = LENGTHS[HABIT_LEVEL]
"""What follows so many tokens is a habit."""

SETTLED = 6
"""Times in a row that are counted of a habit."""

SMALLEST = 10
"""The binary logarithm of the fewest slots for a length."""


class TextIndex:
    """An index over a text that only grows: for each length of grams, the place behind the last one of every hash.

    A slot is overwritten by whatever gram comes to it next, and what is found is compared with the text. So a
    collision may hide a place, but never makes up one, a token costs the same whatever the text is, and nothing is
    ever taken out. Owned by the engine's thread.
    """

    __slots__ = ("_places", "_shift", "_size", "habits", "n_indexed", "tokens")

    def __init__(self, tokens: array[int], n_expected: int = 0, *, counts_habits: bool = False) -> None:
        """Over `tokens`, which the owner lets grow; `n_expected` of them will do without indexing anew.

        With `counts_habits` the text grows by whole stretches, each of which `index` takes in.
        """
        self.tokens = tokens
        self.n_indexed = 0
        self.habits: array[int] | None = array("b") if counts_habits else None
        """For each token that is indexed, how often in a row the HABIT tokens before it were followed by it."""
        self._allot(max(len(tokens), n_expected))

    @property
    def n_bytes(self) -> int:
        """What it takes beside the text."""
        return len(self._places) * self._places.itemsize

    def add(self, grams: Grams) -> None:
        """Index the next token, whose grams these are."""
        if self.n_indexed == self._size // 2:
            self._allot(self.n_indexed + 1)
            return  # `index` catches up
        place = self.n_indexed + 1
        self.n_indexed = place
        places, shift, size = self._places, self._shift, self._size
        two, three, five, eight, sixteen = grams.hashes
        places[two >> shift] = place
        places[size + (three >> shift)] = place
        places[2 * size + (five >> shift)] = place
        places[3 * size + (eight >> shift)] = place
        places[4 * size + (sixteen >> shift)] = place

    def index(self, stop: int, n_most: int) -> int:
        """Index tokens up to `stop`, `n_most` of them at most. Returns how many."""
        start = self.n_indexed
        if stop <= start or n_most <= 0:
            return 0
        if stop > self._size // 2:
            self._allot(stop)
            start = 0
        stop = min(stop, start + n_most)
        if self.habits is not None:
            if start < len(self.habits):
                stop = min(stop, len(self.habits))  # these were counted before the index was made anew
            else:
                self._count_habits(self.habits, stop)
        places = np.frombuffer(self._places, dtype=np.int32)
        behind = np.arange(start + 1, stop + 1, dtype=np.int32)
        for level, hashes in enumerate(of_array(self.tokens, start, stop)):
            slots = (hashes >> np.uint64(self._shift)).view(np.int64)
            places[level * self._size : (level + 1) * self._size][slots] = behind  # of equal slots the last one counts
        self.n_indexed = stop
        return stop - start

    def find(self, grams: Grams, tail: array[int], limit: int) -> tuple[int, int]:
        """A place that is preceded by the last tokens of `tail`, and by how many: at most `limit` and MAX_MATCH.

        `grams` are those of `tail`. Of the longest of their lengths that is there it is the latest place. (0, 0) where
        there is none.
        """
        places, shift, size = self._places, self._shift, self._size
        hashes = grams.hashes
        limit = min(limit, len(tail))
        for length, level in WIDEST_FIRST:
            if length > limit:
                continue
            place = places[level * size + (hashes[level] >> shift)]
            if place >= length:
                n_match = common_suffix(self.tokens, place, tail, min(place, limit, MAX_MATCH))
                if n_match >= length:
                    return place, n_match
        return 0, 0

    def _count_habits(self, habits: array[int], stop: int) -> None:
        """Go on to count up to `stop`: by what followed the same tokens the last time, in front of this stretch."""
        start = len(habits)
        if not start:
            habits.append(NEW)
            start = 1
        tokens = np.frombuffer(self.tokens, dtype=np.int64)
        at = np.arange(start, stop)
        slots = (of_array(self.tokens, start - 1, stop - 1)[HABIT_LEVEL] >> np.uint64(self._shift)).view(np.int64)
        last = np.frombuffer(self._places, dtype=np.int32)[HABIT_LEVEL * self._size :][slots]
        is_known = (last >= HABIT) & (last < start) & (at >= HABIT)
        last = np.where(is_known, last, 0)
        for i in range(1, HABIT + 1):
            is_known &= tokens[np.maximum(last - i, 0)] == tokens[np.maximum(at - i, 0)]
        before = np.frombuffer(habits, dtype=np.int8)[last]
        is_same = tokens[last] == tokens[at]
        found = np.where(is_known, np.where(is_same, np.minimum(np.maximum(before, 0) + 1, SETTLED), 0), NEW)
        del before  # an array cannot grow while there is a view of it
        habits.frombytes(found.astype(np.int8).tobytes())

    def _allot(self, n_tokens: int) -> None:
        """Begin anew with two to four slots for each of so many tokens: collisions hide few of the places then."""
        bits = max(SMALLEST, (2 * n_tokens).bit_length())
        self._size = 1 << bits
        self._shift = 64 - bits
        self._places: array[int] = array("i", [0]) * (len(LENGTHS) * self._size)
        self.n_indexed = 0


def common_suffix(tokens: array[int], place: int, tail: array[int], limit: int) -> int:
    """How many of the last tokens of `tail` stand before `place`, at most `limit`."""
    end = len(tail)
    n_match = 0
    for n_block in BLOCKS:
        there, here = place - n_match, end - n_match
        if n_match + n_block <= limit and tokens[there - n_block : there] == tail[here - n_block : here]:
            n_match += n_block
    while n_match < limit and tokens[place - n_match - 1] == tail[end - n_match - 1]:
        n_match += 1
    return n_match
