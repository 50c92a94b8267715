"""Hashes of the last tokens of a text, at a few lengths, kept as it grows."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

LENGTHS = (2, 3, 5, 8, 16)
"""Tokens of a gram. Each is hashed from two shorter ones, so that a token costs a few multiplications."""

CONTEXT = LENGTHS[-1]
"""How many tokens before a place its hashes depend on."""

MASK = (1 << 64) - 1
FACTORS = (
    0x9E3779B97F4A7C15,
    0xC2B2AE3D27D4EB4F,
    0xD6E8FEB86659FD93,
    0xA0761D6478BD642F,
    0xE7037ED1A0B428DB,
)
"""An odd factor for each length: what is multiplied last spreads every bit into the high ones, which are used."""

F2, F3, F5, F8, F16 = FACTORS


class Grams:
    """The hashes (64 bits) of the grams that a text ends with. Before its first token there are zeros.

    The same numbers come from `of_array`, which hashes many tokens at once.
    """

    __slots__ = ("_eights", "_last", "_threes", "_twos", "hashes")

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        """Those of a text that ends with `tokens`, of which CONTEXT are enough."""
        self._last = 0
        self._twos = deque([0] * 3, maxlen=3)
        self._threes = deque([0] * 5, maxlen=5)
        self._eights = deque([0] * 8, maxlen=8)
        self.hashes: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
        for token in tokens:
            self.push(token)

    def push(self, token: int) -> None:
        """Go on by a token."""
        twos, threes, eights = self._twos, self._threes, self._eights
        two = (self._last ^ (token << 17)) * F2 & MASK
        three = (twos[2] ^ (token << 17)) * F3 & MASK
        five = (twos[0] ^ (three << 17)) * F5 & MASK
        eight = (threes[0] ^ (five << 17)) * F8 & MASK
        self.hashes = (two, three, five, eight, (eights[0] ^ (eight << 17)) * F16 & MASK)
        self._last = token
        twos.append(two)
        threes.append(three)
        eights.append(eight)


def of_array(tokens: array[int], start: int, stop: int) -> list[NDArray[np.uint64]]:
    """Hashes of the grams that end with each of the tokens in [start, stop): an array for each length."""
    first = max(0, start - CONTEXT)
    n_zeros = CONTEXT - (start - first)
    padded = np.zeros(n_zeros + stop - first, dtype=np.uint64)
    padded[n_zeros:] = np.frombuffer(tokens, dtype=np.int64)[first:stop].view(np.uint64)
    shift = np.uint64(17)
    f2, f3, f5, f8, f16 = (np.uint64(factor) for factor in FACTORS)
    two = (padded[:-1] ^ (padded[1:] << shift)) * f2  # ends with tokens 1, 2, … of `padded`
    three = (two[:-1] ^ (padded[2:] << shift)) * f3  # … 2, 3, …
    five = (two[:-3] ^ (three[2:] << shift)) * f5  # … 4, 5, …
    eight = (three[:-5] ^ (five[3:] << shift)) * f8  # … 7, 8, …
    sixteen = (eight[:-8] ^ (eight[8:] << shift)) * f16  # … 15, 16, …
    return [hashes[len(hashes) - (stop - start) :] for hashes in (two, three, five, eight, sixteen)]
