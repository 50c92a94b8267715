"""A slot: one native sequence id and what is resident in it.

resident   |#############################|.......|     cells the native memory holds for this slot
n_shared   |########|                                  the most that another slot holds as the same cells
n_exact    |##################|                        as a fresh evaluation would make them (all, until a shift)
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

from llamabox.engine.kv.history import History


@dataclass(frozen=True, slots=True, eq=False)
class SlotState:
    """A copy of all that a slot holds: its cells, how many of them are exact, the native state. Nobody changes it.

    Or of the part that cannot be cut, with the cells after which it was so (kv/checkpoints).
    """

    cells: History
    n_exact: int
    native: bytes | memoryview


class Slot:
    """Free slots keep their cells: they are the prefix cache. Changed by KVCache only, together with the memory."""

    __slots__ = ("is_busy", "last_used", "n_exact", "n_shared", "resident", "slot_id")

    def __init__(self, slot_id: int) -> None:
        self.slot_id = slot_id
        self.resident = History()
        self.n_exact = 0
        self.n_shared = 0
        self.is_busy = False
        self.last_used = 0


class Sharing:
    """Which slots hold the same cells of a unified pool. Keeps their `n_shared`; changed by KVCache only.

    Cells are shared from the first one on: what two slots have in common is a beginning of both. So of any slots, the
    cells that one of them shares with those before it are as many as it has in common with one of these.
    """

    def __init__(self, slots: Seq[Slot]) -> None:
        self._common: dict[Slot, dict[Slot, int]] = {slot: {} for slot in slots}  # without those that share nothing
        self._n_doubled: int | None = None  # of all slots, once somebody has asked

    def share(self, source: Slot, target: Slot, n_cells: int) -> None:
        """Note that `target`, which shared nothing, holds the first `n_cells` cells of `source` from now on."""
        for other, n_common in list(self._common[source].items()):
            self._set(target, other, min(n_common, n_cells))
        self._set(source, target, n_cells)

    def keep(self, slot: Slot, n_cells: int) -> None:
        """Note that a slot shares no more than its first `n_cells` cells any longer."""
        if slot.n_shared > n_cells:
            for other, n_common in list(self._common[slot].items()):
                self._set(slot, other, min(n_common, n_cells))

    def n_doubled(self, slots: Seq[Slot]) -> int:
        """Cells by which the sum over some slots is more than they hold together."""
        places = {slot: i for i, slot in enumerate(slots)}
        return sum(
            max((n for other, n in self._common[slot].items() if places.get(other, i) < i), default=0)
            for i, slot in enumerate(slots)
        )

    def n_held(self) -> int:
        """Cells that all slots hold together."""
        if self._n_doubled is None:
            self._n_doubled = self.n_doubled(list(self._common))
        return sum(len(slot.resident) for slot in self._common) - self._n_doubled

    def _set(self, one: Slot, other: Slot, n_cells: int) -> None:
        self._n_doubled = None
        for slot, beside in ((one, other), (other, one)):
            if n_cells:
                self._common[slot][beside] = n_cells
            else:
                self._common[slot].pop(beside, None)
            slot.n_shared = max(self._common[slot].values(), default=0)
