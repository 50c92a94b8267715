"""The second tier of the prefix cache: what slots held, kept in host memory when they had to give it up."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from llamabox.engine.radix import RadixTree
from llamabox.engine.slot import SlotState

TOKEN_BYTES = 64
"""What a token id costs here beside its native state: an entry of a tuple, its int object, the index's copy."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry that begins like a prompt: `n_cells` of its cells are of use."""

    entry: int = -1
    n_cells: int = 0


class HostCache:
    """States by their tokens, the least recently used dropped first. Owned by the engine's thread.

    `budget` is in bytes and is never exceeded, not even for a moment; 0 keeps nothing.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._states: OrderedDict[int, SlotState] = OrderedDict()  # the most recently used last
        self._index = RadixTree()
        self._next = 0
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._states)

    @property
    def is_on(self) -> bool:
        return self._budget > 0

    def has(self, tokens: Sequence[int]) -> bool:
        """Whether some entry begins with all of `tokens`."""
        return self._index.find(tokens, len(tokens)).length == len(tokens)

    def make_room(self, n_bytes: int) -> bool:
        """Drop old entries until a state of `n_bytes` fits. False, and nothing dropped, where it never will."""
        if n_bytes > self._budget:
            return False
        while self.n_bytes + n_bytes > self._budget:
            self._drop(next(iter(self._states)))
        return True

    def put(self, state: SlotState) -> bool:
        """Keep `state` in the place of entries that are beginnings of it. False where it is larger than the budget."""
        n_exact = state.n_exact
        if not self.make_room(size(state)):
            return False
        for entry in self._index.beginnings(state.tokens[:n_exact]):
            self._drop(entry)
        entry, self._next = self._next, self._next + 1
        self._states[entry] = state
        self._index.extend(entry, state.tokens[:n_exact])
        self.n_bytes += size(state)
        return True

    def find(self, tokens: Sequence[int], limit: int) -> Kept:
        """The entry that holds most of the beginning of `tokens`, up to `limit` of them; the shortest among equals."""
        found = self._index.find(tokens, limit)
        if not found.length:
            return Kept()
        return Kept(min(found.owners, key=lambda entry: len(self._states[entry].tokens)), found.length)

    def get(self, entry: int) -> SlotState:
        """The state of an entry, which counts as a use of it."""
        self._states.move_to_end(entry)
        return self._states[entry]

    def _drop(self, entry: int) -> None:
        self._index.drop(entry)
        self.n_bytes -= size(self._states.pop(entry))


def size(state: SlotState) -> int:
    """Bytes that an entry counts."""
    return len(state.native) + TOKEN_BYTES * len(state.tokens)
