"""Which sequences get drafts, and what becomes of drafts that are rejected."""

from __future__ import annotations

from collections.abc import Iterable

from llamabox.engine.drafting.drafter import Drafter, Wish
from llamabox.engine.kv.kv_cache import KVCache
from llamabox.engine.sequence import Sequence


class Drafts:
    """Asks the drafter for the running sequences, and keeps `Sequence.drafts` and the ledger in step.

    Without a drafter no sequence ever has drafts. Owned by the engine's thread.
    """

    def __init__(self, drafter: Drafter | None, cache: KVCache) -> None:
        self._drafter = drafter
        self._cache = cache
        self._has_room = True  # nothing was given up since a batch was last computed

    def propose(self, running: Iterable[Sequence]) -> None:
        """Get drafts for the sequences that can use some and have none."""
        if self._drafter is None or not self._has_room:
            return
        able = [(sequence, n_most) for sequence in running if (n_most := self._n_most(sequence)) > 0]
        wishes = [Wish(sequence.key, sequence.cells, sequence.n_generated, n_most) for sequence, n_most in able]
        for (sequence, n_most), draft in zip(able, self._drafter.propose(wishes), strict=True):
            sequence.drafts = draft[:n_most]

    def computed(self) -> None:
        """Note that there was room for a batch."""
        self._has_room = True

    def give_up(self, sequences: Iterable[Sequence]) -> bool:
        """Drop their drafts for lack of room, until a batch was computed. False if there are none to drop."""
        drafting = [sequence for sequence in sequences if sequence.drafts]
        for sequence in drafting:
            sequence.drafts = []
        self._has_room = not drafting
        return bool(drafting)

    def verified(self, sequence: Sequence, n_drafted: int, n_accepted: int) -> None:
        """Tell the drafter that so many drafted tokens were verified, and how many of them came."""
        if self._drafter is not None and n_drafted:
            self._drafter.accepted(sequence.key, n_drafted, n_accepted)

    def take_back(self, sequence: Sequence) -> None:
        """Forget a sequence's drafts, and the cells of those that were rejected.

        Where the memory does not give back just these, the sequence computes its cells again and drafts no more.
        """
        sequence.drafts = []
        n_cells = len(sequence.cells) - 1  # the last token is not computed
        if sequence.n_computed > n_cells:
            assert sequence.slot is not None
            sequence.may_draft = self._cache.truncate(sequence.slot, n_cells) == n_cells

    def forget(self, sequence: Sequence) -> None:
        """The sequence has ended."""
        if self._drafter is not None:
            self._drafter.forget(sequence.key)

    def _n_most(self, sequence: Sequence) -> int:
        """Most drafted tokens that the next step might accept.

        None under a grammar, and none where the probabilities that the samplers leave are told: both would have to be
        known behind each drafted token before the step.
        """
        if sequence.is_prefilling or sequence.drafts or sequence.n_pending != 1 or not sequence.may_draft:
            return 0
        if sequence.constraint is not None or sequence.tells_distribution:
            return 0
        n_most = self._cache.n_ctx - 2 - sequence.n_computed
        if sequence.params.n_predict > 0:
            n_most = min(n_most, sequence.params.n_predict - sequence.n_generated - 1)
        if sequence.rate_limit is not None:
            n_most = min(n_most, sequence.rate_limit.n_at_once - 1)
        return n_most
