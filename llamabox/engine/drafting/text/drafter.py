"""The drafter that needs no model: what stood behind the same words before."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from llamabox.engine.drafting.drafter import Draft, Key, Wish
from llamabox.engine.drafting.text.corpus import Audience, Corpus
from llamabox.engine.drafting.text.follower import Follower

BULK = 16_384
"""Tokens that one step indexes at most of what is new to a lone sequence, a prompt or a prediction: about 3 ms."""

LEAST_BULK = 2_048
"""The same where there are many sequences, which all wait for it."""


class TextDrafter:
    """Drafts from the sequences themselves, from predictions, and from a `corpus` of finished outputs. A Drafter.

    A long prompt is indexed by a slice a step, so that no step takes long for it. Owned by the engine's thread.
    """

    computes = False

    def __init__(self, corpus: Corpus | None = None, n_max: int = 64) -> None:
        """No draft has more than `n_max` tokens. Without a `corpus` nobody's output helps another."""
        self._corpus = corpus
        self._n_max = n_max
        self._followers: dict[Key, tuple[Follower, Audience]] = {}

    @property
    def n_sequences(self) -> int:
        """How many are followed: those that have drafted and not ended."""
        return len(self._followers)

    def propose(self, wishes: Seq[Wish]) -> list[Draft | None]:
        """For each sequence what followed the longest match."""
        budget = max(LEAST_BULK, BULK // len(wishes)) if wishes else 0
        if self._corpus is not None:
            budget -= self._corpus.index(budget)
        drafts: list[Draft | None] = []
        for wish in wishes:
            entry = self._followers.get(wish.key)
            follower = self._begin(wish) if entry is None else entry[0]
            budget -= follower.read(budget)
            drafts.append(follower.propose(min(wish.n_most, self._n_max)))
        return drafts

    def accepted(self, key: Key, draft: Draft, n_verified: int, n_accepted: int) -> None:
        """Nothing to note: what came is read from the sequence."""

    def truncated(self, key: Key) -> None:
        """The places in this sequence are others now."""
        if entry := self._followers.get(key):
            entry[0].truncated()

    def forget(self, key: Key, said: Seq[int]) -> None:
        """Keep what it said for others of its audience."""
        entry = self._followers.pop(key, None)
        if entry is not None and self._corpus is not None:
            self._corpus.add(entry[1], said)

    def _begin(self, wish: Wish) -> Follower:
        audience = (wish.cells.lora, wish.params.audience)
        shelf = None if self._corpus is None else self._corpus.shelf(audience)
        follower = Follower(wish, shelf)
        self._followers[wish.key] = (follower, audience)
        return follower
