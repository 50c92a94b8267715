"""A sequence, and all that it could be copying from."""

from __future__ import annotations

from array import array
from typing import TypeAlias

from llamabox.engine.drafting.drafter import Draft, Source, Wish
from llamabox.engine.drafting.text.corpus import Shelf
from llamabox.engine.drafting.text.grams import CONTEXT, Grams
from llamabox.engine.drafting.text.index import MAX_MATCH, TextIndex
from llamabox.engine.drafting.text.trail import Trail

N_APIECE = 64
"""Up to so many new tokens are read one by one."""

LIKE_THE_LAST = 2
"""What it is worth, in tokens of a match, that an answer's first token is that of the last one: of JSON a lot."""

N_EXPECTED = 512
"""Room in the index for what a sequence says, before it is made anew with more."""

FOLLOW = 8
"""What was copied from is lost from sight, and still looked for, until a match as long as this is found elsewhere."""

Match: TypeAlias = "tuple[int, Source, array[int], int]"
"""A place to copy from: how much speaks for it, whose it is, the text, and the place."""


class Follower:
    """Reads a sequence as it grows, and proposes what followed the longest match. Owned by the engine's thread.

    Three texts are looked at: the client's prediction, the sequence itself, and the outputs of others (`shelf`). In
    each the place that is copied from is kept as a trail, beside what the index finds.
    """

    def __init__(self, wish: Wish, shelf: Shelf | None) -> None:
        self._cells = wish.cells
        self._keys = wish.cells.live_keys
        self._shelf = shelf
        self._own = TextIndex(self._keys, len(self._keys) + N_EXPECTED)
        self._foreseen = TextIndex(array("q", wish.params.prediction)) if wish.params.prediction else None
        self._trails: dict[Source, Trail] = {}
        self._grams = Grams()
        self._n_read = 0
        if wish.n_generated <= N_APIECE:
            self._begin(self._keys[len(self._keys) - wish.n_generated :])

    def _begin(self, said: array[int]) -> None:
        """Expect the prediction, and an answer that begins as the last one of the others did."""
        if self._foreseen is not None:
            self._trails[Source.PREDICTION] = Trail.from_start(self._foreseen.tokens)
        if self._shelf is not None and self._shelf.latest is not None:
            self._trails[Source.CORPUS] = Trail.from_start(self._shelf.young.tokens, self._shelf.latest, LIKE_THE_LAST)
        for source, trail in list(self._trails.items()):
            trail.follow(said, len(trail.text))
            if trail.is_cold:
                del self._trails[source]

    def truncated(self) -> None:
        """Cells were taken out of the middle: places in the sequence are others now."""
        self._own = TextIndex(self._keys, len(self._keys) + N_EXPECTED)
        self._trails.pop(Source.HISTORY, None)
        self._restart()

    def read(self, n_bulk: int) -> int:
        """Take in what the sequence has said, and index up to `n_bulk` tokens that are behind. Returns how many."""
        keys, n_read = self._keys, self._n_read
        n_keys = len(keys)
        if n_read and 0 <= n_keys - n_read <= N_APIECE:
            if n_keys > n_read:
                self._read_on(keys[n_read:], n_read)
        else:
            if n_read:  # else the trail of a prediction is up to date
                self._trails.clear()
            self._restart()
        n_done = 0
        if self._own.n_indexed < n_keys - 1:
            n_done = self._own.index(n_keys - 1, n_bulk)
        if self._foreseen is not None:
            n_done += self._foreseen.index(len(self._foreseen.tokens), n_bulk - n_done)
        return n_done

    def propose(self, n_most: int) -> Draft | None:
        """What follows the longest match, of equal ones in the prediction, then in the sequence. None without one."""
        limit = MAX_MATCH if self._cells.is_text else self._n_text
        found = [self._match(Source.HISTORY, self._own, None, limit)]
        if self._foreseen is not None:
            found.insert(0, self._match(Source.PREDICTION, self._foreseen, None, limit))
        if self._shelf is not None and self._shelf.young.n_indexed:
            found.append(self._match(Source.CORPUS, self._shelf.young, self._shelf.old, limit))
        if len(found) > 1:
            found.sort(key=_n_match, reverse=True)  # equal ones stay in order
        for n_match, source, text, place in found:
            if n_match and (tokens := self._coming(source, text, place, n_most)):
                if source is Source.CORPUS and self._shelf is not None:
                    habits = self._shelf.habits(text, place, place + len(tokens))
                    return Draft(tokens, source, n_match, habits=habits)
                return Draft(tokens, source, n_match)
        return None

    @property
    def _n_text(self) -> int:
        """How many cells stand behind its last picture or sound."""
        return len(self._keys) - self._cells.spans[-1].stop

    def _restart(self) -> None:
        """Begin from what is there now."""
        self._n_read = len(self._keys)
        self._grams = Grams(self._keys[max(0, self._n_read - CONTEXT) :])

    def _read_on(self, tokens: array[int], n_read: int) -> None:
        for source, trail in list(self._trails.items()):
            trail.follow(tokens, n_read if source is Source.HISTORY else len(trail.text))
            if trail.is_cold:
                del self._trails[source]
        grams, own = self._grams, self._own
        for token in tokens:
            if own.n_indexed == n_read - 1:
                own.add(grams)  # the last token is found only from the next one on
            grams.push(token)
            n_read += 1
        self._n_read = n_read

    def _match(self, source: Source, index: TextIndex, older: TextIndex | None, limit: int) -> Match:
        """The trail in a text, or what the index has if that is more."""
        trail = self._trails.get(source)
        n_trail = 0 if trail is None else trail.n_match
        if n_trail < MAX_MATCH:
            text = index.tokens
            place, n_match = index.find(self._grams, self._keys, limit)
            if older is not None and n_match < MAX_MATCH:
                old_place, n_old = older.find(self._grams, self._keys, limit)
                if n_old > n_match:
                    place, n_match, text = old_place, n_old, older.tokens
            if n_match > n_trail or (n_match and n_match == n_trail and trail is not None and trail.is_exact):
                if trail is None or not trail.is_lost or n_match >= FOLLOW:
                    self._trails[source] = Trail(text, place, n_match)
                return n_match, source, text, place
        if trail is None:
            return 0, source, index.tokens, 0
        return n_trail, source, trail.text, trail.place

    def _coming(self, source: Source, text: array[int], place: int, n_most: int) -> list[int]:
        """Up to `n_most` tokens from `place` on. A sequence that repeats itself goes on to do so."""
        coming = text[place : place + n_most].tolist()
        if source is Source.HISTORY:
            if len(coming) < n_most and coming:
                coming = (coming * (n_most // len(coming) + 1))[:n_most]
            if self._cells.is_text:
                return coming
        elif source is Source.PREDICTION:
            return coming
        return coming[: next((i for i, token in enumerate(coming) if token < 0), len(coming))]


def _n_match(match: Match) -> int:
    return match[0]
