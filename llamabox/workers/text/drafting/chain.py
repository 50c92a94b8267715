"""A draft in the making, token by token, and how long it may become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from llamabox.engine.drafting.drafter import Draft, Source, Wish
from llamabox.workers.text.drafting.seams import Guess

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How long drafts are: what the command line says, which a request may tighten."""

    n_max: int
    """Most tokens of a draft."""
    n_min: int = 0
    """A draft of fewer tokens is thrown away."""
    p_min: float = 0.0
    """A draft ends before a token that is given a lower probability."""

    def of(self, wish: Wish, room: int) -> range:
        """The lengths that a draft for `wish` may have, `room` at most. Empty: it can have none."""
        n_max = self.n_max if wish.params.n_max < 0 else wish.params.n_max
        return range(max(1, self.n_min, wish.params.n_min), min(wish.n_most, n_max, room) + 1)


class Chain(Generic[T]):
    """The tokens of a draft so far. `place` is where the text stands that it is for."""

    def __init__(self, wish: Wish, place: T, lengths: Lengths, room: int) -> None:
        """The draft may have `room` tokens at most."""
        self.wish = wish
        self.place = place
        self.tokens: list[int] = []
        self.chance = 1.0
        """That all of them come, by who drafts."""
        self._chances: list[float] = []
        self._lengths = lengths.of(wish, room)
        self._p_min = lengths.p_min if wish.params.p_min < 0 else wish.params.p_min

    def take(self, guess: Guess | None, n_vocab: int, eog: frozenset[int]) -> bool:
        """Put a guess behind the draft if it is good enough. Whether there may be another behind it."""
        if guess is None or guess.chance < self._p_min or guess.token >= n_vocab:
            return False
        self.tokens.append(guess.token)
        self._chances.append(guess.chance)
        self.chance *= guess.chance
        return len(self.tokens) + 1 < self._lengths.stop and guess.token not in eog

    def result(self, source: Source) -> Draft | None:
        """The draft; None where it is too short."""
        if len(self.tokens) < self._lengths.start:
            return None
        return Draft(self.tokens, source, chances=self._chances)
