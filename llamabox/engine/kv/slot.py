"""A slot: one native sequence id and what is resident in it.

resident   |#############################|.......|     cells the native memory holds for this slot
n_shared   |########|                                  the most that another slot may hold as the same cells
n_exact    |##################|                        as a fresh evaluation would make them (all, until a shift)
"""

from __future__ import annotations

from dataclasses import dataclass

from llamabox.engine.kv.history import History
from llamabox.engine.request import LoraSet


@dataclass(frozen=True, slots=True)
class SlotState:
    """What a slot holds, for keeping it elsewhere: its text tokens, how many of them are exact, the native state.

    `lora` is the set of adapters that computed it.
    """

    tokens: tuple[int, ...]
    n_exact: int
    native: bytes | memoryview
    lora: LoraSet = ()


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
