"""The second tier of the prefix cache: states of slots, kept in host memory once the slots had to give them up.

Beside them checkpoints, which are the parts of states that cannot be cut (kv/checkpoints).
"""

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
    """States and parts by their cells and LoRA set, the least recently used dropped first.

    Owned by the engine's thread.

    `budget` is in bytes and is never exceeded, with the `n_reserved` bytes that a state will come into; 0 keeps
    nothing. All cells of a state must be exact.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._states: OrderedDict[int, SlotState] = OrderedDict()  # the most recently used last
        self._trees: dict[LoraSet, RadixTree] = {}
        self._part_trees: dict[LoraSet, RadixTree] = {}
        self._next = 0
        self.n_bytes = 0
        self.n_reserved = 0

    def __len__(self) -> int:
        return len(self._states)

    @property
    def is_on(self) -> bool:
        return self._budget > 0

    def make_room(self, n_bytes: int) -> bool:
        """Drop old entries until `n_bytes` more fit. False, and nothing dropped, where they never will."""
        if self.n_reserved + n_bytes > self._budget:
            return False
        while self.n_reserved + self.n_bytes + n_bytes > self._budget:
            self.drop(next(iter(self._states)))
        return True

    def put(self, state: SlotState) -> bool:
        """Keep `state` in the place of entries that are beginnings of it. False where it is larger than the budget."""
        tree = self._trees.get(state.cells.lora)
        if not self.make_room(size(len(state.cells), held_by(state.native))):
            return False
        for entry in tree.beginnings(state.cells.key_array()) if tree else ():
            self.drop(entry)
        self._add(state, self._trees)
        return True

    def put_part(self, part: SlotState) -> bool:
        """Keep a part, of whose cells there is none yet. False where it is larger than the budget."""
        if not self.make_room(size(len(part.cells), held_by(part.native))):
            return False
        self._add(part, self._part_trees)
        return True

    def find(self, prompt: History, limit: int) -> HostMatch:
        """The entry that holds most of the beginning of `prompt`, up to `limit` cells; the shortest among equals."""
        tree = self._trees.get(prompt.lora)
        found = Holders() if tree is None else find_prefix(tree, prompt, limit)
        if not found.length:
            return HostMatch()
        return HostMatch(min(found.owners, key=lambda entry: len(self._states[entry].cells)), found.length)

    def find_whole(self, prompt: History, limit: int) -> HostMatch:
        """The longest entry all of which is a beginning of `prompt`, of up to `limit` cells."""
        return self._longest(self._trees.get(prompt.lora), prompt, limit)

    def find_part(self, prompt: History, limit: int) -> HostMatch:
        """The part that is of the longest beginning of `prompt`, of up to `limit` cells."""
        return self._longest(self._part_trees.get(prompt.lora), prompt, limit)

    def get(self, entry: int) -> SlotState:
        """The state of an entry, which counts as a use of it."""
        self._states.move_to_end(entry)
        return self._states[entry]

    def parts(self, text: History) -> list[HostMatch]:
        """All parts that are of a beginning of `text`, the shortest first."""
        tree = self._part_trees.get(text.lora)
        found = tree.beginnings(text.key_array()) if tree else set()
        return sorted(
            (HostMatch(entry, len(self._states[entry].cells)) for entry in found), key=lambda one: one.n_cells
        )

    def drop(self, entry: int) -> None:
        """Forget an entry."""
        state = self._states.pop(entry)
        self.n_bytes -= size(len(state.cells), held_by(state.native))
        lora = state.cells.lora
        for trees in (self._trees, self._part_trees):
            if (tree := trees.get(lora)) is not None:
                tree.drop(entry)
                if not len(tree):
                    del trees[lora]

    def _add(self, state: SlotState, trees: dict[LoraSet, RadixTree]) -> None:
        assert state.n_exact == len(state.cells)
        entry, self._next = self._next, self._next + 1
        self._states[entry] = state
        trees.setdefault(state.cells.lora, RadixTree()).extend(entry, state.cells.key_array())
        self.n_bytes += size(len(state.cells), held_by(state.native))

    def _longest(self, tree: RadixTree | None, prompt: History, limit: int) -> HostMatch:
        found = tree.beginnings(prompt.key_array(0, limit)) if tree else set()
        matches = (HostMatch(entry, len(self._states[entry].cells)) for entry in found)
        return max(matches, key=lambda match: match.n_cells, default=HostMatch())


def size(n_cells: int, n_native: int) -> int:
    """Bytes that an entry counts which has `n_cells` cells and `n_native` bytes of memory for its native state."""
    return n_native + CELL_BYTES * n_cells


def held_by(native: bytes | memoryview) -> int:
    """Bytes of the memory that a native state stands in: there may be more than it fills."""
    return memoryview(native.obj).nbytes if isinstance(native, memoryview) else len(native)
