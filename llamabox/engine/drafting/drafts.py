"""Which sequences get drafts, and what becomes of drafts that are rejected."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Seq

from llamabox.engine.drafting.drafter import Draft, Drafter, Wish
from llamabox.engine.drafting.tally import Tally
from llamabox.engine.kv.kv_cache import KVCache
from llamabox.engine.sequence import Sequence


class Drafts:
    """Asks the drafters for the sequences of a step, and keeps `Sequence.drafts` and the ledger in step.

    Drafts are made for one step and are gone behind it. Without drafters there are none. Owned by the engine's thread.
    """

    def __init__(self, drafters: Seq[Drafter], cache: KVCache) -> None:
        """For a sequence the first of the `drafters` counts that has a draft."""
        self._drafters = drafters
        self._cache = cache
        self._open: dict[Sequence, tuple[Drafter, Draft]] = {}  # drafts that are being verified, and whose they are
        self._has_room = True  # nothing was given up since a batch was last computed
        self.tally = Tally()

    @property
    def is_on(self) -> bool:
        """Whether anything is ever drafted."""
        return bool(self._drafters)

    def plan(self, sequences: Iterable[Sequence], room: int) -> dict[Sequence, int]:
        """Give drafts to those of `sequences` that can use some, `room` tokens in all. Returns how many each got.

        Each of the sequences has all its cells in the step.
        """
        if not self._drafters or not self._has_room or room <= 0:
            return {}
        wishes = {
            sequence: self._wish(sequence, n_most) for sequence in sequences if (n_most := self._n_most(sequence))
        }
        found: dict[Sequence, tuple[Drafter, Draft]] = {}
        for drafter in self._drafters:
            asking = [sequence for sequence in wishes if sequence not in found]
            if asking:
                drafts = drafter.propose([wishes[sequence] for sequence in asking])
                found |= {
                    sequence: (drafter, draft)
                    for sequence, draft in zip(asking, drafts, strict=True)
                    if draft is not None
                }
        lengths: dict[Sequence, int] = {}
        for sequence, (drafter, draft) in found.items():
            n_most = len(draft.tokens) if draft.chances else max(1, draft.n_match)  # a longer match promises more
            length = min(len(draft.tokens), wishes[sequence].n_most, room, n_most)
            if length >= max(wishes[sequence].params.n_min, 1):
                sequence.drafts = list(draft.tokens[:length])
                self._open[sequence] = (drafter, draft)
                lengths[sequence] = length
                room -= length
        return lengths

    def computed(self) -> None:
        """Note that there was room for a batch."""
        self._has_room = True

    def give_up(self, sequences: Iterable[Sequence]) -> bool:
        """Drop their drafts for lack of room, until a batch was computed. False if there are none to drop."""
        drafting = [sequence for sequence in sequences if sequence.drafts]
        for sequence in drafting:
            sequence.drafts = []
        self._open.clear()
        self._has_room = not drafting
        return bool(drafting)

    def verified(self, sequence: Sequence, n_accepted: int) -> None:
        """Note that the first `n_accepted` of a sequence's drafts came, and no others."""
        drafter, draft = self._open.pop(sequence)
        n_verified = len(sequence.drafts)
        self.tally.verified(sequence.timings, draft.source, n_verified, n_accepted)
        drafter.accepted(sequence.key, draft, n_verified, n_accepted)

    def take_back(self, sequence: Sequence) -> None:
        """Forget a sequence's drafts, and the cells of those that were rejected.

        Where the memory does not give back just these, the sequence computes its cells again and drafts no more.
        """
        sequence.drafts = []
        self._open.pop(sequence, None)
        n_cells = len(sequence.cells) - 1  # the last token is not computed
        if sequence.n_computed > n_cells:
            assert sequence.slot is not None
            sequence.may_draft = self._cache.truncate(sequence.slot, n_cells) == n_cells

    def truncated(self, sequence: Sequence) -> None:
        """A context shift has taken cells of the sequence."""
        for drafter in self._drafters:
            drafter.truncated(sequence.key)

    def forget(self, sequence: Sequence, *, has_failed: bool) -> None:
        """The sequence has ended."""
        self._open.pop(sequence, None)
        if self._drafters:
            said = [] if has_failed else sequence.said
            for drafter in self._drafters:
                drafter.forget(sequence.key, said)

    def _wish(self, sequence: Sequence, n_most: int) -> Wish:
        return Wish(sequence.key, sequence.cells, sequence.n_generated, n_most, sequence.params.drafting)

    def _n_most(self, sequence: Sequence) -> int:
        """Most drafted tokens that the next step might accept; 0: none.

        None under a grammar, and none where the probabilities that the samplers leave are told: both would have to be
        known behind each drafted token before the step.
        """
        params = sequence.params
        if sequence.is_prefilling or not sequence.may_draft or params.drafting.n_max == 0:
            return 0
        if sequence.constraint is not None or sequence.tells_distribution:
            return 0
        n_most = min(self._cache.n_ctx - 1 - len(sequence.cells), self._cache.n_draftable)
        if params.n_predict > 0:
            n_most = min(n_most, params.n_predict - sequence.n_generated - 1)
        if sequence.rate_limit is not None:
            n_most = min(n_most, sequence.rate_limit.n_at_once - 1)
        if params.drafting.n_max > 0:
            n_most = min(n_most, params.drafting.n_max)
        return max(n_most, 0)
