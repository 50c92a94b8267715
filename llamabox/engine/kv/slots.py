"""The slots, as somebody outside the engine may look at them and change them."""

from __future__ import annotations

from collections.abc import Callable

from llamabox.engine.events import SlotView
from llamabox.engine.kv.kv_cache import KVCache
from llamabox.engine.kv.slot import SlotState
from llamabox.engine.sequence import Sequence
from llamabox.errors import InvalidRequest


class Slots:
    """`view` may be called from any thread. The rest is for the engine's, between two steps, and for idle slots."""

    def __init__(self, cache: KVCache, running: Callable[[], list[Sequence]]) -> None:
        self._cache = cache
        self._running = running

    def view(self) -> list[SlotView]:
        """A glance at what the engine's thread is changing: the numbers may be of neighbouring steps."""
        found = {}
        for slot in self._cache.slots:
            found[slot.slot_id] = SlotView(slot.slot_id, len(slot.resident))
        for one in list(self._running()):
            if (taken := one.slot) is not None:
                n_resident = len(taken.resident)
                found[taken.slot_id] = SlotView(
                    *(taken.slot_id, n_resident, one.request_id, one.n_prompt, one.n_generated, one.truncated)
                )
        return list(found.values())

    @property
    def must_wait(self) -> bool:
        """Whether streams are to get a token before a state is saved or restored."""
        return bool(self._running()) and self._cache.copy_time.is_overdue

    def is_busy(self, id_slot: int) -> bool:
        """Whether a sequence holds it."""
        return self._cache.slots[id_slot].is_busy

    def n_bytes(self, id_slot: int) -> int:
        """Bytes of the native state of what it holds now."""
        return self._cache.state_size(self._cache.slots[id_slot])

    def save(self, id_slot: int, into: memoryview | None = None) -> SlotState:
        """A copy of what it holds: in `into`, if that is large enough."""
        return self._cache.state(self._cache.slots[id_slot], into)

    def restore(self, id_slot: int, state: SlotState) -> None:
        """Let it hold `state`, which must be from this model. Raises InvalidRequest where it cannot."""
        n_cells, n_ctx = len(state.cells), self._cache.n_ctx
        if n_cells > n_ctx:
            raise InvalidRequest(
                f"Unable to restore slot: it holds {n_cells} tokens, more than the slot's context of {n_ctx}"
            )
        if not self._cache.restore(self._cache.slots[id_slot], state):
            raise InvalidRequest("Unable to restore slot: its state does not fit into this server's KV memory")

    def erase(self, id_slot: int) -> int:
        """Forget what it holds. Returns how many cells that was."""
        slot = self._cache.slots[id_slot]
        n_erased = len(slot.resident)
        self._cache.clear(slot)
        return n_erased
