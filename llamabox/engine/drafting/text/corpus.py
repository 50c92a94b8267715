"""What was answered lately, so that answers alike can be copied from."""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Sequence as Seq

from llamabox.engine.drafting.text.index import TextIndex
from llamabox.engine.request import LoraSet

SEPARATOR = -1
"""Stands behind each output: no token equals it, so that no match and no draft reaches from one into the next."""

N_TOKENS = 1 << 19
"""What is kept in all, with 50 to 90 bytes for each token."""

Audience = tuple[LoraSet, str]
"""Who may copy from whom: those with one set of adapters and one name."""

N_AUDIENCES = 64
"""The most that are kept: an empty shelf takes 20 KiB, too."""

N_LEAST = 4
"""Outputs of fewer tokens are not worth a place."""


class Shelf:
    """Finished outputs of one audience, in two halves: when the younger is full, the older goes.

    Holds about `n_tokens` at most. Owned by the engine's thread.
    """

    def __init__(self, n_tokens: int) -> None:
        self._n_half = n_tokens // 2
        self.young = _empty()
        self.old: TextIndex | None = None
        self.latest: int | None = None
        """Where the last output begins in the younger half, if there is one."""

    def __len__(self) -> int:
        """Its tokens."""
        return len(self.young.tokens) + (len(self.old.tokens) if self.old else 0)

    @property
    def n_bytes(self) -> int:
        """What the indices take beside the tokens."""
        return self.young.n_bytes + (self.old.n_bytes if self.old else 0)

    def add(self, output: Seq[int]) -> None:
        """Put in an output, or as much of its beginning as half of the shelf takes."""
        if len(self.young.tokens) + len(output) + 1 > self._n_half:
            self.old, self.young = self.young, _empty()
        self.latest = len(self.young.tokens)
        self.young.tokens.extend(array("q", output[: self._n_half - 1]))
        self.young.tokens.append(SEPARATOR)

    @property
    def is_indexed(self) -> bool:
        """Whether all of it can be found."""
        return all(half.n_indexed == len(half.tokens) for half in (self.young, self.old) if half is not None)

    def habits(self, text: array[int], start: int, stop: int) -> list[int]:
        """Those of the tokens in [start, stop) of one of its halves; none of a text that has gone."""
        for half in (self.young, self.old):
            if half is not None and half.tokens is text and half.habits is not None:
                return half.habits[start:stop].tolist()
        return []

    def index(self, n_most: int) -> int:
        """Index what was put in, `n_most` tokens at most. Returns how many."""
        n_done = self.young.index(len(self.young.tokens), n_most)
        if self.old is not None:
            n_done += self.old.index(len(self.old.tokens), n_most - n_done)
        return n_done


def _empty() -> TextIndex:
    return TextIndex(array("q"), counts_habits=True)


class Corpus:
    """Finished outputs by their audience, `n_tokens` at most; what was used least lately goes first.

    No audience has more than a quarter, so that a busy one leaves the others theirs. Owned by the engine's thread.
    """

    def __init__(self, n_tokens: int = N_TOKENS) -> None:
        self._n_tokens = n_tokens
        self._shelves: OrderedDict[Audience, Shelf] = OrderedDict()
        self._behind: deque[Shelf] = deque()  # those with outputs that are not indexed yet

    def __len__(self) -> int:
        """Tokens that are kept."""
        return sum(map(len, self._shelves.values()))

    @property
    def n_audiences(self) -> int:
        """Those that have a shelf."""
        return len(self._shelves)

    def shelf(self, audience: Audience) -> Shelf:
        """What this audience may copy from."""
        shelf = self._shelves.pop(audience, None)
        if shelf is None:
            shelf = Shelf(self._n_tokens // 4)
            if len(self._shelves) == N_AUDIENCES:
                self._shelves.popitem(last=False)
        self._shelves[audience] = shelf
        return shelf

    def add(self, audience: Audience, output: Seq[int]) -> None:
        """Keep a finished output."""
        if len(output) < N_LEAST:
            return
        shelf = self.shelf(audience)
        shelf.add(output)
        if shelf not in self._behind:
            self._behind.append(shelf)
        n_tokens = len(self)
        while n_tokens > self._n_tokens:
            _, dropped = self._shelves.popitem(last=False)
            n_tokens -= len(dropped)

    def index(self, n_most: int) -> int:
        """Index what was kept since, `n_most` tokens at most. Returns how many."""
        n_done = 0
        while self._behind and n_done < n_most:
            n_done += self._behind[0].index(n_most - n_done)
            if self._behind[0].is_indexed:
                self._behind.popleft()
        return n_done
