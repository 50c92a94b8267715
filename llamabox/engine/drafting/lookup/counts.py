"""How often which token followed an n-gram of one to four tokens."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping

N_MAX = 4
"""Tokens of the longest n-gram."""

BITS = 32
LOW = (1 << BITS) - 1
TOP = BITS * (N_MAX - 1)

Gram = int
"""An n-gram: 32 bits for each token, one more than its id, the first in the lowest; zeros where there are fewer."""

Followers = Mapping[int, int]
"""Token → how often it followed."""

NOBODY: Followers = {}


def gram_of(tokens: Iterable[int]) -> Gram:
    """That of one to four tokens."""
    return sum((token + 1) << (BITS * i) for i, token in enumerate(tokens))


def tokens_of(gram: Gram) -> tuple[int, ...]:
    """Its tokens."""
    fields = [gram >> (BITS * i) & LOW for i in range(N_MAX)]
    return tuple(field - 1 for field in fields if field)


def pushed(tail: Gram, token: int) -> Gram:
    """The last four tokens of a text whose last four were `tail`, behind one more. Fewer stand in the upper bits."""
    return (tail >> BITS) | (token + 1) << TOP if token >= 0 else 0  # nothing is counted across a picture


def shifts_of(n_min: int) -> tuple[int, ...]:
    """By how many bits a tail is shifted for each size of n-gram from `n_min` to four, the smallest first."""
    return tuple(BITS * (N_MAX - size) for size in range(n_min, N_MAX + 1))


class Counts:
    """Counts that grow. Owned by the engine's thread."""

    def __init__(self, n_min: int) -> None:
        """Of n-grams of `n_min` to four tokens."""
        self.shifts = shifts_of(n_min)
        self.followers: dict[Gram, dict[int, int]] = {}

    def __len__(self) -> int:
        """Its n-grams."""
        return len(self.followers)

    def count(self, tokens: Iterable[int], tail: Gram = 0) -> Gram:
        """Count what follows in `tokens`, in front of which `tail` stands. Returns the tail behind them."""
        followers, shifts = self.followers, self.shifts
        for token in tokens:
            if token >= 0:
                for shift in shifts:
                    gram = tail >> shift
                    if not gram & LOW:
                        break  # the text is shorter than this
                    part = followers.get(gram)
                    if part is None:
                        followers[gram] = {token: 1}
                    else:
                        part[token] = part.get(token, 0) + 1
            tail = pushed(tail, token)
        return tail

    def thin_out(self, n_most: int) -> None:
        """Drop n-grams until there are `n_most`: evenly over their age, which costs less than by chance."""
        surplus = len(self.followers) - n_most
        if surplus > 0:
            grams = list(self.followers)
            for i in range(surplus):
                del self.followers[grams[i * len(grams) // surplus]]


class StaticCounts:
    """Counts of 2-grams that stay as they are, in four arrays: millions of them fit into memory."""

    def __init__(self, grams: array[int], starts: array[int], pairs: array[int]) -> None:
        """`grams` in order; (token, count) of the i-th's followers are in `pairs`, from starts[i] to starts[i + 1]."""
        assert len(starts) == len(grams) + 1
        self._grams = grams
        self._starts = starts
        self._pairs = pairs

    def __len__(self) -> int:
        """Its n-grams."""
        return len(self._grams)

    def followers(self, gram: Gram) -> Followers:
        """What followed a 2-gram."""
        i = bisect_left(self._grams, gram)
        if i == len(self._grams) or self._grams[i] != gram:
            return NOBODY
        pairs = self._pairs[self._starts[i] : self._starts[i + 1]]
        return dict(zip(pairs[::2], pairs[1::2], strict=True))


NO_STATIC = StaticCounts(array("q"), array("q", [0]), array("i"))
