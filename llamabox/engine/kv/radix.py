"""A radix tree over token sequences: who begins like this one, and for how long."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from llamabox.engine.kv.history import History


@dataclass(slots=True, eq=False)
class Node:
    """Keys that all of `owners` have at this depth, one behind the other. Its children begin with different keys."""

    keys: array[int]
    parent: Node | None
    owners: set[int] = field(default_factory=set)
    children: dict[int, Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Holders:
    """Owners whose sequences all begin with the same `length` keys; by default there are none."""

    length: int = 0
    owners: frozenset[int] = frozenset()


class RadixTree:
    """Sequences of int64 keys by owner. A lookup costs the length of the match, whatever the number of sequences.

    Growing, cutting and dropping a sequence cost the length that changes and the number of branches on its way. Not
    thread-safe.
    """

    def __init__(self) -> None:
        self._root = Node(array("q"), None)
        self._ends: dict[int, Node] = {}  # the last node of each owner's sequence
        self._lengths: dict[int, int] = {}

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self._ends)

    def length(self, owner: int) -> int:
        """Keys that `owner` has in the tree; 0 for one that has none."""
        return self._lengths.get(owner, 0)

    def extend(self, owner: int, keys: Iterable[int]) -> None:
        """Add `keys` at the end of the owner's sequence."""
        added = keys if isinstance(keys, array) else array("q", keys)
        if not added:
            return
        start = node = self._ends.get(owner, self._root)
        self._lengths[owner] = self.length(owner) + len(added)
        position = 0
        while position < len(added):
            child = node.children.get(added[position])
            if child is None:
                node, position = self._append(owner, node, added[position:]), len(added)
                break
            n_same = _common(child.keys, added, position)
            if n_same < len(child.keys):
                child = self._split(child, n_same)
            child.owners.add(owner)
            node, position = child, position + n_same
        self._ends[owner] = node
        self._join(start)

    def cut(self, owner: int, length: int) -> None:
        """Keep the first `length` keys of the owner's sequence."""
        surplus = self.length(owner) - length
        if surplus <= 0:
            return
        node = self._ends[owner]
        while surplus > 0:
            if surplus < len(node.keys):
                # Not at its upper end: the front half stays the owner's.
                self._split(node, len(node.keys) - surplus)
                surplus = len(node.keys)
            parent = node.parent
            assert parent is not None
            surplus -= len(node.keys)
            node.owners.discard(owner)
            if node.owners:
                self._join(node)
            else:
                del parent.children[node.keys[0]]
            node = parent
        self._join(node)
        self._note_end(owner, length)

    def drop(self, owner: int) -> None:
        """Forget the owner's sequence."""
        self.cut(owner, 0)

    def find(self, keys: Sequence[int], limit: int) -> Holders:
        """The longest beginning of `keys`, up to `limit` of them, that any sequence has, and all whose it is."""
        wanted = keys if isinstance(keys, array) else array("q", keys)
        node, length = self._root, 0
        limit = min(limit, len(wanted))
        while length < limit:
            child = node.children.get(wanted[length])
            if child is None:
                break
            n_same = min(_common(child.keys, wanted, length), limit - length)
            node, length = child, length + n_same
            if n_same < len(child.keys):
                break
        return Holders(length, frozenset(node.owners)) if length else Holders()

    def n_shared(self, owner: int) -> int:
        """Leading keys of the owner's sequence that somebody else has too."""
        length, node = self.length(owner), self._ends.get(owner, self._root)
        while node.parent is not None and len(node.owners) == 1:
            length, node = length - len(node.keys), node.parent
        return length

    def beginnings(self, keys: Sequence[int]) -> set[int]:
        """The owners whose whole sequence is a beginning of `keys`, or equal to it."""
        wanted = keys if isinstance(keys, array) else array("q", keys)
        node, length = self._root, 0
        while length < len(wanted):
            child = node.children.get(wanted[length])
            if child is None or _common(child.keys, wanted, length) < len(child.keys):
                break
            node, length = child, length + len(child.keys)
        found = set()
        while node.parent is not None:
            found |= {owner for owner in node.owners if self._ends[owner] is node}
            node = node.parent
        return found

    def runs(self) -> dict[tuple[int, ...], frozenset[int]]:
        """Every node as the keys from the root to its end, with its owners. For tests: it costs as much as all keys."""
        found: dict[tuple[int, ...], frozenset[int]] = {}
        waiting: list[tuple[tuple[int, ...], Node]] = [((), self._root)]
        while waiting:
            before, node = waiting.pop()
            keys = (*before, *node.keys)
            if keys:
                found[keys] = frozenset(node.owners)
            waiting += [(keys, child) for child in node.children.values()]
        return found

    def _append(self, owner: int, node: Node, keys: array[int]) -> Node:
        """Go on from `node` with keys that nobody has there. Returns the node that holds them."""
        if node.owners == {owner} and not node.children:
            node.keys.extend(keys)
            return node
        node.children[keys[0]] = child = Node(keys, node, {owner})
        return child

    def _split(self, node: Node, n_front: int) -> Node:
        """Put the first `n_front` keys of `node` into a new node above it, which is returned."""
        assert 0 < n_front < len(node.keys)
        parent = node.parent
        assert parent is not None
        front = Node(node.keys[:n_front], parent, set(node.owners))
        parent.children[front.keys[0]] = front
        node.keys, node.parent = node.keys[n_front:], front
        front.children[node.keys[0]] = node
        return front

    def _join(self, node: Node) -> None:
        """Take a node's only child into it where the two have the same owners, so that runs stay long."""
        if node is self._root or len(node.children) != 1:
            return
        [child] = node.children.values()
        if child.owners != node.owners:
            return
        node.keys.extend(child.keys)
        node.children = child.children
        for grandchild in node.children.values():
            grandchild.parent = node
        for owner in node.owners:
            if self._ends[owner] is child:
                self._ends[owner] = node

    def _note_end(self, owner: int, length: int) -> None:
        """Note that the owner's sequence ends at `length`."""
        if length == 0:
            del self._ends[owner], self._lengths[owner]
            return
        # Joining may have moved the end: it is the last node on the way down that is still the owner's.
        node = self._ends[owner]
        while owner not in node.owners:
            assert node.parent is not None
            node = node.parent
        self._ends[owner], self._lengths[owner] = node, length


def find_prefix(tree: RadixTree, prompt: History, limit: int) -> Holders:
    """The longest beginning of `prompt`, up to `limit` cells, that any sequence of `tree` has, media chunks whole."""
    found = tree.find(prompt.key_array(0, limit), limit)
    n_cells = prompt.whole(found.length)
    return found if n_cells == found.length else tree.find(prompt.key_array(0, n_cells), n_cells)


def _common(keys: array[int], other: array[int], start: int) -> int:
    """Number of leading keys of `keys` that `other` has from `start` on. The caller knows that the first is one."""
    n_most = min(len(keys), len(other) - start)
    differs = np.frombuffer(keys, np.int64, n_most) != np.frombuffer(other, np.int64, n_most, start * 8)
    first = int(differs.argmax())
    return first if differs[first] else n_most
