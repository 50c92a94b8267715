"""Which resident cells a prompt can start from: the sequences of all slots, growing ones too, in radix trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llamabox.engine.kv.history import History
from llamabox.engine.kv.radix import Holders, RadixTree, find_prefix
from llamabox.engine.kv.slot import Slot
from llamabox.engine.request import LoraSet


@dataclass(frozen=True, slots=True)
class Match:
    """A prompt may start from `n_cells` leading cells that are in `slot`, of `n_common` that are resident somewhere.

    They differ where slots cannot be cut everywhere.
    """

    slot: Slot | None = None
    n_cells: int = 0
    n_common: int = 0


class PrefixIndex:
    """The exact cells of every slot, a tree for each LoRA set. Owned by the engine's thread.

    It is told at once when a slot loses cells. At the next lookup it finds out by itself which ones a slot has gained:
    slots grow with every token, lookups come with every request.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._trees: dict[LoraSet, RadixTree] = {}
        self._trees_of: dict[int, LoraSet] = {}  # by slot id: the tree that the slot is in

    def lost(self, slot: Slot, n_cells: int) -> None:
        """The cells of `slot` from `n_cells` on are about to go or to change."""
        lora = self._trees_of.get(slot.slot_id)
        if lora is None:
            return
        tree = self._trees[lora]
        tree.cut(slot.slot_id, n_cells)
        if not tree.length(slot.slot_id):
            del self._trees_of[slot.slot_id]
            if not len(tree):
                del self._trees[lora]

    def match(self, prompt: History, limit: int) -> Match:
        """The slot that holds most of the prompt's beginning, at most `limit` cells; among equals a free slot wins.

        Only cells that equal what a fresh evaluation would hold count: after a context shift those before the gap.
        """
        self._catch_up()
        tree = self._trees.get(prompt.lora)
        found = Holders() if tree is None else find_prefix(tree, prompt, limit)
        if not found.length:
            return Match()
        holders = [self._slots[slot_id] for slot_id in found.owners]
        return Match(min(holders, key=lambda slot: (slot.is_busy, slot.slot_id)), found.length, found.length)

    def n_shared(self, slot: Slot) -> int:
        """Leading exact cells of `slot` that another slot holds too."""
        self._catch_up()
        lora = self._trees_of.get(slot.slot_id)
        return 0 if lora is None else self._trees[lora].n_shared(slot.slot_id)

    def _catch_up(self) -> None:
        for slot in self._slots:
            if not slot.n_exact:
                continue
            lora = self._trees_of.setdefault(slot.slot_id, slot.resident.lora)
            assert lora == slot.resident.lora, "a slot went over to other adapters without losing its cells"
            tree = self._trees.setdefault(lora, RadixTree())
            n_known = tree.length(slot.slot_id)
            if n_known < slot.n_exact:
                tree.extend(slot.slot_id, slot.resident.key_array(n_known, slot.n_exact))
