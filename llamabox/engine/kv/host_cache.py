"""The second tier of the prefix cache: what slots held, kept in host memory when they had to give it up."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from llamabox.engine.kv.radix import Found, RadixTree
from llamabox.engine.kv.slot import SlotState
from llamabox.engine.request import LoraSet

TOKEN_BYTES = 64
"""What a token id costs here beside its native state: an entry of a tuple, its int object, the index's copy."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry that begins like a prompt: `n_cells` of its cells are of use."""

    entry: int = -1
    n_cells: int = 0


class HostCache:
    """States by their tokens and LoRA set, the least recently used dropped first. Owned by the engine's thread.

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
        assert state.n_exact == len(state.tokens)
        tree = self._trees.get(state.lora)
        if not self.make_room(size(len(state.tokens), len(state.native))):
            return False
        for entry in tree.beginnings(state.tokens) if tree else ():
            self._drop(entry)
        entry, self._next = self._next, self._next + 1
        self._states[entry] = state
        self._trees.setdefault(state.lora, RadixTree()).extend(entry, state.tokens)
        self.n_bytes += size(len(state.tokens), len(state.native))
        return True

    def find(self, tokens: Sequence[int], lora: LoraSet, limit: int) -> Kept:
        """The entry that holds most of the beginning of `tokens`, up to `limit` of them; the shortest among equals."""
        found = self._trees[lora].find(tokens, limit) if lora in self._trees else Found()
        if not found.length:
            return Kept()
        return Kept(min(found.owners, key=lambda entry: len(self._states[entry].tokens)), found.length)

    def get(self, entry: int) -> SlotState:
        """The state of an entry, which counts as a use of it."""
        self._states.move_to_end(entry)
        return self._states[entry]

    def _drop(self, entry: int) -> None:
        state = self._states.pop(entry)
        self.n_bytes -= size(len(state.tokens), len(state.native))
        self._trees[state.lora].drop(entry)
        if not len(self._trees[state.lora]):
            del self._trees[state.lora]


def size(n_tokens: int, n_native: int) -> int:
    """Bytes that an entry of so many tokens and bytes of native state counts."""
    return n_native + TOKEN_BYTES * n_tokens
