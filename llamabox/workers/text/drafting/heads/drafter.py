"""The drafter that asks the model's own heads of multi-token prediction."""

from __future__ import annotations

import logging
from collections.abc import Sequence as Seq

from llamabox import errors
from llamabox.engine.drafting.drafter import Draft, Key, Source, Wish
from llamabox.workers.text.drafting.chain import Chain, Lengths
from llamabox.workers.text.drafting.heads.cells import Follower, HeadCells
from llamabox.workers.text.drafting.heads.seams import NextPair, Pairs
from llamabox.workers.text.drafting.pace import Pace, Steps

logger = logging.getLogger(__name__)

FIRST_WINDOW = 16
"""Tokens of a draft at most, before it is known how many of them are verified."""

MAX_FAILURES = 3
"""Computations that may fail one after the other before the heads are given up."""


class HeadDrafter:
    """Greedy drafts of a model's first head, of all sequences together: one decode a token. Engine's thread.

    The head takes a token and the hidden row in front of it, which the model left; for further tokens of a draft it
    takes its own hidden row. A draft goes on while the chance that all of it comes is worth a further decode (see
    Pace). Whether it is asked at all is for the price to say; while it is not, the model keeps no hidden rows.
    """

    computes = True

    def __init__(
        self, cells: HeadCells, lengths: Lengths, *, n_vocab: int, eog: frozenset[int], pace: Pace | None = None
    ) -> None:
        """`eog`: the tokens that end a text."""
        self.cells = cells
        self.pace = pace or Pace()
        self._lengths = lengths
        self._n_vocab = n_vocab
        self._eog = eog
        self._window = FIRST_WINDOW  # tokens of a draft at most
        self._steps = Steps()
        self._n_failures = 0  # since a computation last succeeded
        self._is_told = False

    def propose(self, wishes: Seq[Wish]) -> list[Draft | None]:
        self.pace.enter(self._steps.since(wishes))
        self.cells.called()
        drafts = self._try(wishes)
        self.pace.leave()
        return [drafts.get(wish.key) for wish in wishes]

    def accepted(self, key: Key, draft: Draft, n_verified: int, n_accepted: int) -> None:
        """What stays of a draft shows in what the model computes.

        A pass for a token that is not verified was for nothing: drafts grow while all of them comes, and shrink to a
        token more than what the price has verified.
        """
        self._steps.accepted(key, n_accepted)
        if n_verified < len(draft.tokens):
            self._window = n_verified + 1
        elif n_accepted >= self._window:
            self._window += 1

    def truncated(self, key: Key) -> None:
        """The model's memory has said so."""

    def forget(self, key: Key, said: Seq[int]) -> None:
        """The model keeps the text's cells for whoever begins alike, and so does the head."""

    def _try(self, wishes: Seq[Wish]) -> dict[Key, Draft]:
        """The drafts of the texts that have some; none where the context fails."""
        chains = [chain for wish in wishes if (chain := self._begin(wish)) is not None]
        if not chains:
            return {}
        try:
            self._draft(chains)
        except errors.DecodeError as error:
            self._fail(error)
            return {}
        self._n_failures = 0
        drafts = {chain.wish.key: chain.result(Source.MTP) for chain in chains}
        return {key: draft for key, draft in drafts.items() if draft is not None}

    def _begin(self, wish: Wish) -> Chain[Follower] | None:
        """A draft without tokens as yet; None for a text whose hidden rows are not known."""
        room = max(self._window, self._lengths.n_min, wish.params.n_min)
        if wish.seq_id < 0 or not self._lengths.of(wish, room):
            return None
        follower = self.cells.ready(wish.seq_id, wish.cells.position(len(wish.cells) - 1))
        return None if follower is None else Chain(wish, follower, self._lengths, room)

    def _draft(self, chains: list[Chain[Follower]]) -> None:
        """Let the drafts grow. Raises a DecodeError."""
        begun = self.pace.now()
        found = self.cells.begin([(chain.place, chain.wish.cells.key(len(chain.wish.cells) - 1)) for chain in chains])
        self.pace.drafted(begun)  # else it would not be known what a round takes, once it seemed too much
        growing = list(zip(chains, found, strict=True))
        has_cells = False
        try:
            while growing := self._grown(growing):
                begun = self.pace.now()
                has_cells = True
                parts = [
                    Pairs(chain.place.seq_id, chain.place.n_seen + len(chain.tokens), chain.tokens[-1:], row, True)
                    for chain, row in ((chain, pair.row[None]) for chain, pair in growing if pair is not None)
                ]
                found = self.cells.compute(parts)
                self.pace.drafted(begun)
                growing = [(chain, pair) for (chain, _), pair in zip(growing, found, strict=True)]
        finally:
            if has_cells:
                self.cells.end([chain.place for chain in chains])

    def _grown(
        self, growing: list[tuple[Chain[Follower], NextPair | None]]
    ) -> list[tuple[Chain[Follower], NextPair | None]]:
        """Put what follows behind the drafts. Those that may go on."""
        taken = [
            (chain, pair)
            for chain, pair in growing
            if pair is not None and chain.take(pair.guess, self._n_vocab, self._eog)
        ]
        return [(chain, pair) for chain, pair in taken if chain.chance >= self.pace.least_chance]

    def _fail(self, error: errors.DecodeError) -> None:
        """Go without drafts in this step, and say so once."""
        self._n_failures += not isinstance(error, errors.NoRoom)
        if self._n_failures >= MAX_FAILURES:
            logger.error("the model's heads are given up: %s", error.message)
            self.cells.lose()
        elif not self._is_told:
            self._is_told = True
            logger.warning("no drafts of the model's heads in steps where they cannot compute: %s", error.message)
