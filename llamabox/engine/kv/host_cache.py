"""The second tier of the prefix cache: states of slots, kept in host memory once the slots had to give them up."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from llamabox.engine.kv.history import History
from llamabox.engine.kv.radix import Holders, RadixTree, find_prefix
from llamabox.engine.kv.slot import SlotState
from llamabox.engine.request import LoraSet

CELL_BYTES = 16
"""What a cell costs here beside its native state: its key, and the index's copy of it."""


@dataclass(frozen=True, slots=True)
class HostMatch:
    """An entry of the host cache whose first `n_cells` cells are those of a prompt; by default there is none."""

    entry: int = -1
    n_cells: int = 0


class HostCache:
    """States by their cells and LoRA set, the least recently used dropped first. Owned by the engine's thread.

    `budget` is in bytes and is never exceeded; 0 keeps nothing. All cells of a state must be exact.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._states: OrderedDict[int, SlotState] = OrderedDict()  # the most recently used last
        self._trees: dict[LoraSet, RadixTree] = {}
        self._next = 0
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._states)

    @property
    def is_on(self) -> bool:
        return self._budget > 0

    def make_room(self, n_bytes: int) -> bool:
        """Drop old entries until `n_bytes` more fit. False, and nothing dropped, where they never will."""
        if n_bytes > self._budget:
            return False
        while self.n_bytes + n_bytes > self._budget:
            self._drop(next(iter(self._states)))
        return True

    def put(self, state: SlotState) -> bool:
        """Keep `state` in the place of entries that are beginnings of it. False where it is larger than the budget."""
        assert state.n_exact == len(state.cells)
        keys, lora = state.cells.key_array(), state.cells.lora
        tree = self._trees.get(lora)
        if not self.make_room(size(len(keys), len(state.native))):
            return False
        for entry in tree.beginnings(keys) if tree else ():
            self._drop(entry)
        entry, self._next = self._next, self._next + 1
        self._states[entry] = state
        self._trees.setdefault(lora, RadixTree()).extend(entry, keys)
        self.n_bytes += size(len(keys), len(state.native))
        return True

    def find(self, prompt: History, limit: int) -> HostMatch:
        """The entry that holds most of the beginning of `prompt`, up to `limit` cells; the shortest among equals."""
        tree = self._trees.get(prompt.lora)
        found = Holders() if tree is None else find_prefix(tree, prompt, limit)
        if not found.length:
            return HostMatch()
        return HostMatch(min(found.owners, key=lambda entry: len(self._states[entry].cells)), found.length)

    def get(self, entry: int) -> SlotState:
        """The state of an entry, which counts as a use of it."""
        self._states.move_to_end(entry)
        return self._states[entry]

    def _drop(self, entry: int) -> None:
        state = self._states.pop(entry)
        self.n_bytes -= size(len(state.cells), len(state.native))
        lora = state.cells.lora
        self._trees[lora].drop(entry)
        if not len(self._trees[lora]):
            del self._trees[lora]


def size(n_cells: int, n_native: int) -> int:
    """Bytes that an entry counts which has `n_cells` cells and `n_native` bytes of native state."""
    return n_native + CELL_BYTES * n_cells
