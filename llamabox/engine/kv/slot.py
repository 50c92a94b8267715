"""A slot: one native sequence id and what is resident in it.

resident   |#############################|.......|     cells the native memory holds for this slot
n_shared   |########|                                  the most that another slot may hold as the same cells
n_exact    |##################|                        as a fresh evaluation would make them (all, until a shift)
"""

from __future__ import annotations

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
