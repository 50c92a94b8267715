"""The drafter that asks a second, smaller model."""

from __future__ import annotations

import logging
from collections.abc import Sequence as Seq

from llamabox import errors
from llamabox.engine.drafting.drafter import Draft, Key, Source, Wish
from llamabox.workers.text.drafting.chain import Chain, Lengths
from llamabox.workers.text.drafting.pace import Pace, Steps
from llamabox.workers.text.drafting.places import Place, Places
from llamabox.workers.text.drafting.seams import DraftContext, Guess

logger = logging.getLogger(__name__)

FEW = 8
"""Cells that a text lacks and that are computed at once, whatever the others lack: after a draft it is one or two."""

MAX_FAILURES = 3
"""Computations that may fail one after the other before the draft model is given up."""


class ModelDrafter:
    """Greedy drafts of a draft model, of all sequences together: one decode a token. Owned by the engine's thread.

    A draft goes on while the chance that all of it comes is worth a further decode (see Pace). Whether it is asked at
    all is for the price to say, which measures what it takes.

    Before it drafts for a text its context must hold the text: a long prompt is caught up with over several steps, in
    chunks that take about as long as a step of the engine, so that no stream waits long. There are no drafts for it
    meanwhile, none behind media, which the draft model knows nothing of, and none where its context ends.
    """

    computes = True

    def __init__(
        self,
        context: DraftContext,
        lengths: Lengths,
        *,
        n_vocab: int,
        eog: frozenset[int],
        pace: Pace | None = None,
    ) -> None:
        """`n_vocab` and `eog` are the engine's model's: how many tokens it has, and those that end a text."""
        self._context = context
        self.places = Places(context)
        self._lengths = lengths
        self._n_vocab = min(n_vocab, context.n_vocab)
        self._eog = eog
        self.pace = pace or Pace()
        self._steps = Steps()
        self._n_failures = 0  # since a computation last succeeded
        self._said: set[type[errors.LlamaboxError]] = set()

    def propose(self, wishes: Seq[Wish]) -> list[Draft | None]:
        if self._n_failures >= MAX_FAILURES:
            return [None] * len(wishes)
        self.pace.enter(self._steps.since(wishes))
        drafts = self._try(wishes)
        self.pace.leave()
        return [drafts.get(wish.key) for wish in wishes]

    def accepted(self, key: Key, draft: Draft, n_verified: int, n_accepted: int) -> None:
        """What stays of a draft shows in the text."""
        self._steps.accepted(key, n_accepted)

    def truncated(self, key: Key) -> None:
        self.places.truncated(key)

    def forget(self, key: Key, said: Seq[int]) -> None:
        self.places.forget(key)

    def _try(self, wishes: Seq[Wish]) -> dict[Key, Draft]:
        """The drafts of the texts that have some; none where the context fails."""
        try:
            chains = self._draft(wishes)
        except errors.DecodeError as error:
            self._fail(error)
            return {}
        self._n_failures = 0
        drafts = {chain.wish.key: chain.result(Source.MODEL) for chain in chains}
        return {key: draft for key, draft in drafts.items() if draft is not None}

    def _draft(self, wishes: Seq[Wish]) -> list[Chain[Place]]:
        """The drafts of the texts that the context has caught up with. Raises a DecodeError."""
        chains = [chain for wish in wishes if (chain := self._begin(wish)) is not None]
        growing, guesses = self._catch_up(chains)
        drafting = growing
        while True:
            pairs = zip(growing, guesses, strict=True)
            growing = [chain for chain, guess in pairs if chain.take(guess, self._n_vocab, self._eog)]
            growing = [chain for chain in growing if chain.chance >= self.pace.least_chance]
            if not growing:
                return drafting
            begun = self.pace.now()
            guesses = self._compute([(chain.place, chain.tokens[-1:], True) for chain in growing])
            self.pace.drafted(begun)

    def _begin(self, wish: Wish) -> Chain[Place] | None:
        """A draft without tokens as yet; None for a text that the draft model cannot follow."""
        room = self._context.n_ctx - len(wish.cells)
        if not wish.cells.is_text or not self._lengths.of(wish, room):
            return None
        place = self.places.follow(wish.key, wish.cells)
        return None if place is None else Chain(wish, place, self._lengths, room)

    def _catch_up(self, chains: list[Chain[Place]]) -> tuple[list[Chain[Place]], list[Guess | None]]:
        """Compute what the context lacks of the texts, or a part of it. Those it has all of, each with its guess."""
        room, budget = self._context.n_batch, self.pace.chunk
        parts: list[tuple[Place, Seq[int], bool]] = []
        whole: list[Chain[Place]] = []
        n_late = 0
        for chain in sorted(chains, key=_n_lacking):
            n_lacking = _n_lacking(chain)
            n_cells = min(n_lacking, room, n_lacking if n_lacking <= FEW else budget)
            start = len(chain.place.tokens)
            tokens = chain.wish.cells.keys(start, start + n_cells)
            if not tokens or max(tokens) >= self._context.n_vocab:
                continue
            room -= n_cells
            if n_lacking > FEW:
                budget -= n_cells
                n_late += n_cells
            if n_cells == n_lacking:
                whole.append(chain)
            parts.append((chain.place, tokens, n_cells == n_lacking))
        if not parts:
            return [], []
        begun = self.pace.now()
        guesses = self._compute(parts)
        if n_late:
            self.pace.caught_up(sum(len(tokens) for _, tokens, _ in parts), begun)
        else:  # it takes a little more than a round, which would not be known any more once it seemed too much
            self.pace.drafted(begun)
        return whole, guesses

    def _compute(self, parts: Seq[tuple[Place, Seq[int], bool]]) -> list[Guess | None]:
        """Compute; where there is no room, without what is kept of texts that have ended. Raises a DecodeError."""
        try:
            return self.places.compute(parts)
        except errors.NoRoom:
            if not self.places.drop_free():
                raise
            return self.places.compute(parts)

    def _fail(self, error: errors.DecodeError) -> None:
        """Go without drafts in this step, and say so once for each kind of failure."""
        self._n_failures += not isinstance(error, errors.NoRoom)
        if self._n_failures >= MAX_FAILURES:
            logger.error("the draft model is given up: %s", error.message)
        elif type(error) not in self._said:
            self._said.add(type(error))
            logger.warning("no drafts of the draft model in steps where it cannot compute: %s", error.message)


def _n_lacking(chain: Chain[Place]) -> int:
    """Cells of the text that its place does not hold."""
    return len(chain.wish.cells) - len(chain.place.tokens)
