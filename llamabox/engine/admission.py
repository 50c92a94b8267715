"""The queue in front of the slots: who gets which slot, and from which resident cells it starts."""

from __future__ import annotations

from llamabox.engine.kv_cache import KVCache
from llamabox.engine.prefix_index import Match
from llamabox.engine.sequence import Sequence, State
from llamabox.engine.slot import Slot

WORTH_WAITING = 32
"""Cells that a sequence must gain before it waits for another one to compute them."""


class Admission:
    """First come, first served, but nobody waits behind a sequence that itself waits for a slot or a prefix of its own.

    A sequence starts from the longest resident prefix of its prompt, in whatever slot that is. When a running sequence
    is still computing a longer common prefix, it waits for that and then copies it; a sibling (n > 1) always does.
    """

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._waiting: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        self._waiting.remove(sequence)

    def admit(self, running: list[Sequence]) -> list[Sequence]:
        """Give free slots to waiting sequences. `running` is extended by those admitted, which are also returned."""
        admitted: list[Sequence] = []
        for sequence in list(self._waiting):
            free = self._cache.free_slots()
            if not free:
                break
            if sequence.id_slot >= 0:
                free = [slot for slot in free if slot.slot_id == sequence.id_slot]
            if not free or not self._start(sequence, free, running):
                continue
            self._waiting.remove(sequence)
            running.append(sequence)
            admitted.append(sequence)
        return admitted

    def _start(self, sequence: Sequence, free: list[Slot], running: list[Sequence]) -> bool:
        """Put `sequence` into one of the `free` slots. False when it had better wait."""
        match = Match()
        if sequence.params.cache_prompt:
            # The last prompt token is always computed: its logits choose the first token.
            match = self._cache.match(sequence.cells, sequence.n_prompt - 1)
            if _coming(sequence, running) > match.n_cells:
                return False
        sequence.slot, sequence.n_cached = self._place(match, free)
        sequence.state = State.RUNNING
        return True

    def _place(self, match: Match, free: list[Slot]) -> tuple[Slot, int]:
        """A slot of `free` that holds the matched cells, and how many it holds."""
        oldest = free[0]
        if match.slot is None:
            return oldest, self._cache.take(oldest, 0)
        # Taking a slot forgets the rest of what is in it, so most of it should be of use.
        of_use = 2 * match.n_cells >= len(match.slot.resident)
        if match.slot in free and (of_use or match.slot is oldest):
            return match.slot, self._cache.take(match.slot, match.n_cells)
        return oldest, self._cache.copy(match.slot, oldest, match.n_cells)


def _coming(sequence: Sequence, running: list[Sequence]) -> int:
    """Cells of the prompt that some running sequence is about to compute, if they are worth waiting for; else 0."""
    best = 0
    for other in running:
        if other.state is not State.RUNNING or not other.is_prefilling:
            continue
        common = min(other.cells.common_prefix(sequence.cells), sequence.n_prompt - 1)
        gain = common - other.n_computed
        is_sibling = other.request_id == sequence.request_id
        if gain >= (1 if is_sibling else WORTH_WAITING):
            best = max(best, common)
    return best
