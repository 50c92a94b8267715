"""A place in a text that a sequence is copying from, found again behind an edit."""

from __future__ import annotations

from array import array

from llamabox.engine.drafting.text.index import MAX_MATCH

WINDOW = 32
"""How far behind the place where the texts parted they may meet again."""

N_LOST = 48
"""Tokens after which a trail is cold."""

N_SURE = 3
"""Tokens that must agree before it counts as found: a comma alone is everywhere."""

WORTH = 8
"""A match of fewer tokens is not looked for again once it is lost: nobody was copying."""

N_TRIES = 2
"""So often a lone token that agrees is taken for the place. Then two must, and they vouch for none before them: where
much is put in, every comma seems to be the place."""

VOUCH = 3
"""How many tokens of the match before an edit each token behind it vouches for."""


class Trail:
    """Follows a sequence through a `text` that it repeats, with changes. Owned by the engine's thread.

    While each next token is the next one of the text, the match grows. Where they differ, something was replaced, put
    in or left out: what comes next may be behind the replaced token, or anywhere in the next WINDOW tokens of the text.
    """

    __slots__ = ("_base", "_before", "_n_false", "_n_lost", "_run", "place", "text")

    def __init__(self, text: array[int], place: int, n_match: int) -> None:
        """The sequence's last `n_match` tokens stand before `place`."""
        self.text = text
        self.place = place
        self._run = n_match  # tokens that agree since the last difference
        self._before = 0  # those before it
        self._n_lost = 0  # tokens since they parted; 0: they agree
        self._n_false = 0  # times since then that a token agreed by chance
        self._base = place  # where they parted

    @classmethod
    def from_start(cls, text: array[int], place: int = 0, n_worth: int = MAX_MATCH) -> Trail:
        """That of a sequence that may say from its first token on what is at `place`.

        The expectation is worth a match of `n_worth` tokens; below WORTH it is given up where the first one differs.
        """
        trail = cls(text, place, 0)
        trail._before = n_worth
        return trail

    @property
    def is_cold(self) -> bool:
        """Whether it is lost for good."""
        return self._n_lost > N_LOST

    @property
    def is_lost(self) -> bool:
        """Whether the sequence and the text have parted, and did not surely meet again."""
        return self._n_lost > 0

    @property
    def is_exact(self) -> bool:
        """Whether `n_match` counts tokens that agree, and nothing beyond an edit."""
        return not self._before

    @property
    def n_match(self) -> int:
        """What speaks for the text from `place` on, in tokens of an exact match; 0: there is nothing to go on.

        Without an edit, the number of tokens that agree. Behind one, each token vouches for VOUCH of those before it,
        unless others did so in vain. 1 is the place alone, right behind a token that was replaced: nothing else is ever
        followed for one token.
        """
        if self._run:
            if self._n_false < N_TRIES or not self._n_lost:
                return self._run + min(VOUCH * self._run, self._before)
            return self._run if self._run > 1 else 0
        return 1 if self._n_lost == 1 else 0

    def follow(self, tokens: array[int], end: int) -> None:
        """The sequence went on with `tokens`. What is at `end` of the text and behind it is not there to be found."""
        place = self.place
        behind = place + len(tokens)
        if not self._n_lost and self.text[place:behind] == tokens:
            self.place = behind
            self._run += len(tokens)
            return
        for token in tokens:
            self._step(token, end)
            if self.is_cold:
                return

    def _step(self, token: int, end: int) -> None:
        text, place = self.text, self.place
        if place < len(text) and text[place] == token:
            self.place = place + 1
            self._run += 1
            if self._run >= N_SURE:
                self._n_lost = 0
            return
        if not self._n_lost:
            self._before = min(self._run + self._before, MAX_MATCH)
            if self._before < WORTH:
                self._n_lost = N_LOST + 1
                return
            self._base = place
            self._n_false = 0
        elif self._run:
            self._n_false += 1
        self._n_lost += 1
        window = text[self._base : min(self._base + WINDOW, end)]
        try:
            self.place = self._base + window.index(token) + 1
            self._run = 1
        except ValueError:
            self.place = min(self._base + self._n_lost, end)
            self._run = 0
