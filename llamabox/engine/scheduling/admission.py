"""The queue in front of the slots: who gets which slot, and from which resident cells it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from llamabox import errors
from llamabox.engine.kv.checkpoints import likely_ends, places
from llamabox.engine.kv.copy_time import least_copied
from llamabox.engine.kv.host_cache import HostMatch
from llamabox.engine.kv.kv_cache import KVCache
from llamabox.engine.kv.prefix_index import Match
from llamabox.engine.kv.reuse import Reuse
from llamabox.engine.kv.slot import Slot
from llamabox.engine.request import Request, n_cells
from llamabox.engine.scheduling.line import Line
from llamabox.engine.sequence import Sequence, State

WORTH_RESTORING = 32
"""Least number of cells that a state from host memory must add: it is moved whole."""

N_SPARE = 32
"""Cells of a pool that are left for each sequence in it to grow, where another one is let in."""

WORTH_PREPARING = 16
"""Least number of cells that are computed before a grammar is there: the last cell takes a step of its own then."""

WORTH_WAITING = 32
"""Least number of cells for which a sequence waits until another one has computed them."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the beginning of a prompt is resident: in a slot, in host memory, in pieces that would have to be moved."""

    match: Match = field(default_factory=Match)
    host: HostMatch = field(default_factory=HostMatch)
    reuse: Reuse | None = None

    @property
    def n_cells(self) -> int:
        """Cells in the best of these places."""
        return max(self.match.n_cells, self.host.n_cells, 0 if self.reuse is None else self.reuse.n_cells)


class Admission:
    """First come, first served, but nobody waits behind a sequence that itself waits for a slot or a prefix of its own.

    One whose grammar is still compiled computes its prompt meanwhile, but for what yields the first token (`stand`).

    A sequence starts from the longest resident prefix of its prompt, in whatever slot that is. When a running sequence
    is still computing a longer common prefix, it waits for that and then copies it; a sibling (n > 1) always does.

    Where slots share a pool of cells (Memory.n_pool), a sequence is let in while it has room there beside those that
    run, and nobody overtakes one that waits for room. They may grow more than there is: see `put_back`.

    Taking a slot over forgets what is in it behind the prefix, so at least the part `slot_similarity` of what it holds
    must be of use; else, and always where it is 0, the least recently used slot gets a copy of the prefix.
    """

    def __init__(
        self,
        cache: KVCache,
        slot_similarity: float,
        n_least: int = 1,
        on_start: Callable[[Sequence], None] | None = None,
        *,
        marks: frozenset[int] = frozenset(),
    ) -> None:
        """`n_least`: cells that are left of a text to be computed, if it has as many: its last row must not be alone.

        `on_start` is shown each sequence that is about to get a slot, before what is in the slots changes. `marks`: see
        RunnerFacts.
        """
        self._marks = marks
        self._cache = cache
        self._n_least = n_least
        self._on_start = on_start
        self._similarity = slot_similarity
        self._waiting = Line()
        self._is_full = False  # somebody was put back, and nobody has left since

    def __len__(self) -> int:
        return len(self._waiting)

    def check(self, request: Request) -> None:
        """Raise ContextExceeded or InvalidRequest for a request that could never be admitted."""
        n_prompt, n_ctx, n_slots = n_cells(request.prompt), self._cache.n_ctx, len(self._cache.slots)
        if n_prompt >= n_ctx:
            raise errors.ContextExceeded(n_prompt_tokens=n_prompt, n_ctx=n_ctx)
        if not 1 <= request.params.n <= n_slots:
            raise errors.InvalidRequest(f"Field 'n': must be from 1 to {n_slots}, the number of slots", field="n")
        if request.params.id_slot >= n_slots:
            raise errors.InvalidRequest(f"Field 'id_slot': must be -1 or from 0 to {n_slots - 1}", field="id_slot")

    def add(self, sequence: Sequence) -> None:
        self._waiting.add(sequence)

    def remove(self, sequence: Sequence) -> None:
        self._waiting.remove(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """A sequence that ran has lost its slot, for want of room: it goes first, once another has `left`."""
        self._waiting.put_first(sequence)
        self._is_full = True

    def left(self) -> None:
        """A sequence has ended, or was aborted, and its slot is free."""
        self._is_full = False

    @property
    def next_in_line(self) -> list[Sequence]:
        """The first of those that wait for any slot. Where one is free, they wait for another's prefix instead."""
        if not self._waiting or any(not slot.is_busy for slot in self._cache.slots):
            return []
        return [sequence for sequence in self._waiting.first if not sequence.index]  # the others get their sibling's

    def n_resident(self, sequence: Sequence) -> int:
        """Leading cells of a waiting sequence that need not be computed, as things are."""
        if not sequence.may_reuse:
            return 0
        return self._find(sequence, [], max(len(sequence.cells) - 1, 0)).n_cells

    def admit(self, running: list[Sequence]) -> list[Sequence]:
        """Give free slots to waiting sequences. `running` is extended by those admitted; those that begin are returned.

        Before that, the checkpoints are taken for which sequences computed just so far.
        """
        for sequence in running:
            if sequence.halts:
                self._halt(sequence)
        admitted: list[Sequence] = []
        free = self._cache.free_slots() if self._waiting and not self._is_full else []
        for sequence in self._waiting.candidates(slot.slot_id for slot in free) if free else ():
            if self._cache.copy_time.is_spent:
                break
            if sequence.is_early:
                continue
            mine = [slot for slot in free if sequence.id_slot in (-1, slot.slot_id)]
            if mine and running and not self._has_room(sequence, running):
                break
            if not mine or not self._start(sequence, mine, running):
                continue
            self._waiting.remove(sequence)
            running.append(sequence)
            if sequence.sampler is None:
                admitted.append(sequence)
            free = self._cache.free_slots()
        return admitted

    def _has_room(self, sequence: Sequence, running: list[Sequence]) -> bool:
        """Whether the pool has room for its cells beside those of all that run, and some to spare."""
        if not self._cache.n_pool:
            return True
        slots = [other.slot for other in running if other.slot is not None]
        n_taken = sum(len(other.cells) + N_SPARE for other in running) - self._cache.sharing.n_doubled(slots)
        n_new = len(sequence.cells)
        if sequence.may_reuse and sequence.saved is None:
            match = self._cache.match(sequence.cells, n_new - 1)
            n_new -= match.n_cells if match.slot is not None and match.slot.is_busy else 0
        return n_taken + n_new + N_SPARE <= self._cache.n_pool

    def _halt(self, sequence: Sequence) -> None:
        assert sequence.slot is not None
        if sequence.n_computed in sequence.halts:
            self._cache.checkpoints.take(sequence.slot)
        sequence.halts = [at for at in sequence.halts if at > sequence.n_computed]

    def _start(self, sequence: Sequence, free: list[Slot], running: list[Sequence]) -> bool:
        """Put `sequence` into one of the `free` slots. False if waiting is better for it."""
        sources = Sources()
        # The last cell is always computed: its logits choose the next token.
        limit = sequence.cells.start_for(max(len(sequence.cells) - 1, 0), self._n_least)
        if sequence.may_reuse and sequence.saved is None:
            sources = self._find(sequence, free, limit)
            if self._coming(sequence, running, limit) > sources.n_cells:
                return False
            if self._is_from_host(sources, free):
                n_bytes = self._cache.n_bytes(sources.host)
                if not self._cache.copy_time.fits(n_bytes):
                    if self._cache.copy_time.may_fit_later(n_bytes):
                        return False
                    sources = replace(sources, host=HostMatch())
            if not self._may_place(sources, free):
                return False
        if self._on_start is not None:
            self._on_start(sequence)
        if sequence.saved is not None:
            self._cache.free_up(len(sequence.saved.cells))
        if sequence.saved is not None and self._cache.restore(free[0], sequence.saved):
            slot, n_cached = free[0], self._cache.take(free[0], len(sequence.saved.cells))
        elif self._is_from_host(sources, free):
            slot = next(filter(self._cache.may_restore, free), free[0])
            n_cached = self._cache.take_from_host(slot, sources.host)
        elif sources.reuse is not None and _is_from_reuse(sources):
            slot, n_cached = sources.reuse.slot, self._cache.take_reuse(sources.reuse)
        else:
            slot, n_cached = self._place(sources.match, free)
        sequence.slot, sequence.saved, sequence.state = slot, None, State.RUNNING
        if not sequence.said:  # else it was told
            sequence.n_cached = n_cached
        if self._cache.checkpoints.is_on and sequence.params.cache_prompt:
            self._cache.checkpoints.take(slot)
            n_common, distance = sources.match.n_common, self._cache.checkpoints.limits.distance
            wanted = likely_ends(sequence.cells, limit, n_common, self._marks, distance)
            sequence.halts = places(sequence.cells, wanted, n_cached, limit, self._n_least)
        if sequence.awaits_grammar:
            sequence.stand = self._stand(sequence, n_cached, limit)
        return True

    def _stand(self, sequence: Sequence, n_cached: int, limit: int) -> int:
        """How many cells are computed before the grammar is there: no run of text is cut into pieces of too few."""
        cells = sequence.cells
        begin = max((span.stop for span in cells.spans if span.stop <= limit), default=0)
        stand = limit if limit - max(begin, n_cached) >= self._n_least else begin
        stand = max((at for at in sequence.halts if stand - self._n_least < at <= stand), default=stand)
        return stand if stand >= n_cached + WORTH_PREPARING and not sequence.tells_early else n_cached

    def _find(self, sequence: Sequence, free: list[Slot], limit: int) -> Sources:
        """Where the first `limit` cells of the prompt are."""
        match, host = self._cache.match(sequence.cells, limit), self._cache.match_host(sequence.cells, limit)
        if not sequence.cells.is_text:  # else all that is up to the limit may be started from
            match = replace(match, n_cells=sequence.cells.start_for(match.n_cells, self._n_least))
            host = replace(host, n_cells=sequence.cells.start_for(host.n_cells, self._n_least))
        return Sources(match, host, self._reuse(sequence, free, limit))

    def _place(self, match: Match, free: list[Slot]) -> tuple[Slot, int]:
        """A slot of `free` that holds the matched cells, and how many it holds."""
        oldest = free[0]
        if match.slot is None:
            return oldest, self._cache.take(oldest, 0)
        if self._is_taken_over(match.slot, match.n_cells, free):
            return match.slot, self._cache.take(match.slot, match.n_cells)
        return oldest, self._cache.copy(match.slot, oldest, match.n_cells)

    def _is_taken_over(self, slot: Slot, n_cells: int, free: list[Slot]) -> bool:
        """Whether a sequence starts in the slot that holds its first `n_cells` cells. Else it gets a copy of it."""
        return slot in free and (slot is free[0] or self._is_similar(slot, n_cells))

    def _may_place(self, sources: Sources, free: list[Slot]) -> bool:
        """Whether it may start from these sources now: a copy of a slot may have to wait until streams had a token."""
        match = sources.match
        if match.slot is None or self._is_from_host(sources, free) or _is_from_reuse(sources):
            return True
        if not self._is_copied(match, free):
            return True
        copy_time = self._cache.copy_time
        n_bytes = 2 * self._cache.state_size(match.slot)  # are read and written
        if self._cache.tier.is_state_quicker(match.slot, free[0]) and copy_time.may_fit(n_bytes):
            return copy_time.keeps_pace(n_bytes) and not copy_time.is_overdue
        if self._cache.tier.lift(match.slot, match.n_cells):
            return False
        return copy_time.may_put_off and not copy_time.is_overdue

    def _is_copied(self, match: Match, free: list[Slot]) -> bool:
        """Whether a sequence that starts from these cells gets a copy of a stream."""
        if match.slot is None or self._cache.is_unified or match.n_cells < least_copied(self._cache.n_ctx):
            return False
        return not self._is_taken_over(match.slot, match.n_cells, free)

    def _is_from_host(self, sources: Sources, free: list[Slot]) -> bool:
        """Whether it is best to start from host memory, which has more cells, or spares the copy of a stream."""
        match, host = sources.match, sources.host
        if not host.n_cells or host.n_cells < sources.n_cells:
            return False
        if host.n_cells > match.n_cells + WORTH_RESTORING:
            return True
        if match.slot is None or not self._is_copied(match, free) or self._cache.tier.has_just_lifted:
            return False
        return self._cache.tier.goes_by_host(match.slot, self._cache.n_bytes(host))

    def _reuse(self, sequence: Sequence, free: list[Slot], limit: int) -> Reuse | None:
        """The pieces of the prompt worth moving inside one slot, or None. Only where the request allows moved cells."""
        params = sequence.params
        # The choices of one request start from one evaluation, which must be exact to be shared.
        if not params.n_cache_reuse or params.n > 1:
            return None
        reuse = self._cache.best_reuse(free, sequence.cells, limit, params.n_cache_reuse)
        if reuse is None or not (reuse.slot is free[0] or self._is_similar(reuse.slot, reuse.n_cells)):
            return None
        return reuse

    def _coming(self, sequence: Sequence, running: list[Sequence], limit: int) -> int:
        """Leading cells of the prompt, up to `limit`, that some running sequence is about to compute.

        0 where they are not worth waiting for.
        """
        best = 0
        for other in running:
            if other.state is not State.RUNNING or not other.is_prefilling:
                continue
            if other.slot is None or other.slot.n_exact < other.n_computed:
                continue  # it goes on from moved cells, so nobody else can use its next ones
            common = min(other.cells.common_prefix(sequence.cells), limit)
            common = sequence.cells.start_for(common, self._n_least)
            gain = common - other.n_computed
            is_sibling = other.request_id == sequence.request_id
            if gain >= (1 if is_sibling else WORTH_WAITING):
                best = max(best, common)
                if self._cache.checkpoints.is_on:
                    stands = set() if other.stand is None else {other.stand}
                    halts, start = {*other.halts, *stands}, other.n_computed
                    chosen = places(other.cells, [common], start, limit, self._n_least, beside=halts)
                    other.halts = [at for at in chosen if at in other.halts or at not in stands]
        return best

    def _is_similar(self, slot: Slot, n_cells: int) -> bool:
        return self._similarity > 0 and n_cells >= self._similarity * len(slot.resident)


def _is_from_reuse(sources: Sources) -> bool:
    """Whether moving pieces inside a slot gives more cells than any slot holds."""
    return sources.reuse is not None and sources.reuse.n_cells > sources.match.n_cells
