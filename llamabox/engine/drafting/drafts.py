"""Which sequences get drafts, and what becomes of drafts that are rejected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Seq
from functools import cache
from math import inf

from llamabox.engine.batch import Run
from llamabox.engine.drafting.asking import Asking
from llamabox.engine.drafting.drafter import Draft, Drafter, Wish
from llamabox.engine.drafting.journal import Journal
from llamabox.engine.drafting.looks import Looks, slot_id
from llamabox.engine.drafting.price import Offer, Price, Step
from llamabox.engine.drafting.tally import Tally
from llamabox.engine.grammar import TokenMask
from llamabox.engine.kv.kv_cache import KVCache
from llamabox.engine.sequence import Sequence

N_PLACES = 32
"""The longest draft under a grammar: the grammar is asked about each token, a few microseconds each time."""

LOOK_BACK = 8
"""Tokens of a draft that was not verified which are compared with what came."""


class Drafts:
    """Asks the drafters for the sequences of a step, and keeps `Sequence.drafts` and the ledger in step.

    Drafts are made for one step and are gone behind it. Without drafters there are none. Owned by the engine's thread.
    """

    def __init__(self, drafters: Seq[Drafter], cache: KVCache, price: Price, clock: Callable[[], float]) -> None:
        """The first of the `drafters` is asked first. The `price` chooses the lengths."""
        self._drafters = drafters
        self._cache = cache
        self._price = price
        self._asking = Asking(drafters, price, clock)
        self._open: dict[Sequence, tuple[Drafter, Draft]] = {}  # drafts that are being verified, and whose they are
        self._unproven: dict[Sequence, tuple[Draft, int]] = {}  # did not pay, and when they were made, in tokens said
        self._drafting: dict[Sequence, int] = {}  # those that got a draft when any did last
        self._looks = Looks()
        self._has_room = True  # nothing was given up since a batch was last computed
        self._journal = Journal()
        self.tally = Tally()

    @property
    def is_on(self) -> bool:
        """Whether anything is ever drafted."""
        return bool(self._drafters)

    def plan(self, parts: Mapping[Sequence, int], room: int, seconds_left: float = inf) -> dict[Sequence, int]:
        """Give drafts to sequences that can use some, `room` tokens in all. Returns how many each got.

        `parts` are the cells of each sequence in the step. Only behind the last of all a draft may come. Drafts make
        the step last no longer than `seconds_left`.
        """
        if not self._drafters or not self._has_room or room <= 0:
            return {}
        # Under a grammar only a lone sequence has drafts: masks, where they are needed, take processors from the
        # decode, and what is forced makes runs of unequal lengths already, each with a pass of its own. Four answers
        # of a schema side by side came 0.93 times as fast with drafts, at temperature 0; with drafts behind what is
        # forced alone they took 5 % more of a processor with AVX2 than without.
        looked = self._looks.choose(parts, self._drafting)
        able = {
            one: n_most
            for one in looked
            if parts[one] == one.n_owed
            and (one.constraint is None or len(parts) == 1)
            and (n_most := self._n_most(one)) > 0
        }
        if not able:
            self._looks.led_to(0)
            return {}
        for sequence in able.keys() & self._unproven.keys():
            self._look_back(sequence)
        order = sorted(parts, key=slot_id)
        step = cache(lambda: _step(order, parts, seconds_left))
        found = self._asking.ask({one: _wish(one, n_most) for one, n_most in able.items()}, step)
        for sequence in list(found):
            if sequence.constraint is not None or sequence.thought is not None:
                able[sequence] = _n_able(sequence, found[sequence][1].tokens[: able[sequence]])
                if not able[sequence]:
                    del found[sequence]
        if self._journal.is_read:
            self._journal.note([one for one in able if one not in found], "no guess")
        self._drafting = self._choose(found, able, order, step(), room) if found else {}
        self._looks.led_to(len(self._drafting))
        return self._drafting

    def _choose(
        self,
        found: Mapping[Sequence, tuple[Drafter, Draft]],
        n_most: Mapping[Sequence, int],
        order: list[Sequence],
        step: Step,
        room: int,
    ) -> dict[Sequence, int]:
        """Let the price choose the lengths."""
        places = {sequence: i for i, sequence in enumerate(order)}
        offers = [
            Offer(places[one], draft, n_most[one], one.params.drafting.p_min) for one, (_, draft) in found.items()
        ]
        chosen: dict[Sequence, int] = {}
        for sequence, length in zip(found, self._price.lengths(step, offers, room), strict=True):
            drafter, draft = found[sequence]
            if length and sequence.constraint is not None:
                length = _to_a_choice(sequence.places, length, room)
                sequence.places = sequence.places[: length + 1]
            if length >= max(sequence.params.drafting.n_min, 1):
                sequence.drafts = list(draft.tokens[:length])
                self._open[sequence] = (drafter, draft)
                self._unproven.pop(sequence, None)
                chosen[sequence] = length
                room -= length
                if sequence.constraint is not None and not sequence.is_checked:
                    sequence.constraint.look_ahead(sequence.drafts, forces=sequence.may_be_forced)
            elif sequence not in self._unproven:
                self._unproven[sequence] = (draft, sequence.n_generated)
        if self._journal.is_read:
            self._journal.note(chosen, "drafted")
            self._journal.note([one for one in found if one not in chosen], "does not pay")
        return chosen

    def computed(self) -> None:
        """Note that there was room for a batch."""
        self._has_room = True

    def took(self, runs: Seq[Run], n_context: int, seconds: float) -> None:
        """Note how long a step of these runs took, which were tokens that decode and drafts alone."""
        if not self._drafters:
            return
        if self._looks.is_look:
            self._price.computed([(run.seq_id, len(run)) for run in runs], n_context, seconds)
        self._asking.computed(seconds)

    def give_up(self, sequences: Iterable[Sequence]) -> bool:
        """Drop their drafts for lack of room, until a batch was computed. False if there are none to drop."""
        drafting = [sequence for sequence in sequences if sequence.drafts]
        for sequence in drafting:
            sequence.drafts = []
        self._open.clear()
        self._has_room = not drafting
        return bool(drafting)

    def verified(self, sequence: Sequence, drafted: Seq[int], tokens: Seq[int]) -> None:
        """Note that of a sequence's draft the tokens `drafted` were verified, and that `tokens` came."""
        drafter, draft = self._open.pop(sequence)
        n_verified, n_accepted = len(drafted), min(n_common(drafted, tokens), len(drafted))
        self.tally.verified(sequence.timings, draft.source, n_verified, n_accepted)
        self._price.verified(draft, n_verified, n_accepted)
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
        self._unproven.pop(sequence, None)
        self._drafting.pop(sequence, None)
        if self._drafters:
            self._journal.end(sequence)
            said = [] if has_failed else sequence.said
            for drafter in self._drafters:
                drafter.forget(sequence.key, said)

    def _look_back(self, sequence: Sequence) -> None:
        """Learn from a draft that was not verified: at its place the sequence has gone on meanwhile."""
        draft, start = self._unproven[sequence]
        n_known = min(sequence.n_generated - start, len(draft.tokens), LOOK_BACK)
        n_came = n_common(draft.tokens, sequence.said[start : start + n_known])
        if n_came < n_known or n_known == min(len(draft.tokens), LOOK_BACK):
            del self._unproven[sequence]
            self._price.verified(draft, n_known, n_came)

    def _n_most(self, sequence: Sequence) -> int:
        """Most drafted tokens that the next step might accept; 0: none.

        None where the probabilities that the samplers leave are told: they would have to be known behind each drafted
        token before the step.
        """
        params = sequence.params
        if sequence.is_prefilling or not sequence.may_draft or params.drafting.n_max == 0:
            return 0
        if sequence.tells_distribution:
            return 0
        n_most = min(self._cache.n_ctx - 1 - len(sequence.cells), self._cache.n_draftable())
        if params.n_predict > 0:
            n_most = min(n_most, params.n_predict - sequence.n_generated - 1)
        if sequence.rate_limit is not None:
            n_most = min(n_most, sequence.rate_limit.n_at_once - 1)
        if params.drafting.n_max > 0:
            n_most = min(n_most, params.drafting.n_max)
        return n_most


def _n_able(sequence: Sequence, tokens: Seq[int]) -> int:
    """How many of `tokens` may be drafted, up to the last place at which its grammar leaves a choice."""
    n_allowed = sequence.n_allowed(tokens)
    if not n_allowed or sequence.constraint is None:
        return n_allowed
    tokens = tokens[: min(n_allowed, N_PLACES)]
    sequence.places = sequence.constraint.places(tokens, forces=sequence.may_be_forced)
    return max(len(sequence.places) - 1, 0)


def _to_a_choice(places: Seq[TokenMask | None], length: int, n_most: int) -> int:
    """The length next to `length` behind which there is a choice, `n_most` at most.

    The tokens that are forced behind a draft have to be computed in any case: with it, or in another pass.
    """
    ends = [n for n, place in enumerate(places) if 0 < n <= n_most and place is not None]
    return min((n for n in ends if n >= length), default=max(ends, default=0))


def n_common(draft: Seq[int], said: Seq[int]) -> int:
    """How many of the first tokens of both are the same."""
    return next((i for i, (one, other) in enumerate(zip(draft, said, strict=False)) if one != other), len(said))


def _step(order: Seq[Sequence], parts: Mapping[Sequence, int], seconds_left: float) -> Step:
    """The step without drafts, of sequences in the `order` of their slots."""
    yielding = [parts[one] for one in order if parts[one] == one.n_owed]
    return Step(
        [(slot_id(one), parts[one]) for one in order],
        len(yielding),
        sum(len(one.cells) for one in order) // len(order),
        seconds_left,
        sum(yielding) - len(yielding),
    )


def _wish(sequence: Sequence, n_most: int) -> Wish:
    params = sequence.params.drafting
    return Wish(sequence.key, sequence.cells, sequence.n_generated, n_most, params, slot_id(sequence))
