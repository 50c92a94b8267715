from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llamabox.engine.kv.radix import Holders, RadixTree

KEYS = st.lists(st.integers(-1, 2), max_size=12)
OWNERS = st.integers(0, 4)


def oracle(sequences: dict[int, list[int]], keys: list[int], limit: int) -> Holders:
    lengths = {}
    for owner, sequence in sequences.items():
        n_same = 0
        for ours, wanted in zip(sequence, keys[:limit], strict=False):
            if ours != wanted:
                break
            n_same += 1
        lengths[owner] = n_same
    longest = max(lengths.values(), default=0)
    if longest == 0:
        return Holders()
    return Holders(longest, frozenset(owner for owner, length in lengths.items() if length == longest))


class RadixMachine(RuleBasedStateMachine):
    """Whatever is done to it, it finds what a look at every sequence finds, and is as small as it can be."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = RadixTree()
        self.model: dict[int, list[int]] = defaultdict(list)

    @rule(owner=OWNERS, keys=KEYS)
    def extend(self, owner: int, keys: list[int]) -> None:
        self.tree.extend(owner, keys)
        self.model[owner] += keys

    @rule(owner=OWNERS, length=st.integers(0, 30))
    def cut(self, owner: int, length: int) -> None:
        self.tree.cut(owner, length)
        del self.model[owner][length:]

    @rule(owner=OWNERS)
    def drop(self, owner: int) -> None:
        self.tree.drop(owner)
        self.model[owner].clear()

    @rule(keys=KEYS, limit=st.integers(0, 30))
    def find(self, keys: list[int], limit: int) -> None:
        assert self.tree.find(keys, limit) == oracle(self.model, keys, limit)

    @rule(owner=OWNERS)
    def shared(self, owner: int) -> None:
        others = {each: sequence for each, sequence in self.model.items() if each != owner}
        keys = self.model[owner]
        assert self.tree.n_shared(owner) == oracle(others, keys, len(keys)).length

    @rule(owner=OWNERS, tail=KEYS, n_keys=st.integers(0, 30))
    def beginnings(self, owner: int, tail: list[int], n_keys: int) -> None:
        keys = (self.model[owner] + tail)[:n_keys]
        assert self.tree.beginnings(keys) == {
            each for each, sequence in self.model.items() if sequence and sequence == keys[: len(sequence)]
        }

    @rule(owner=OWNERS, tail=KEYS)
    def find_a_known_beginning(self, owner: int, tail: list[int]) -> None:
        keys = self.model[owner] + tail
        assert self.tree.find(keys, len(keys)) == oracle(self.model, keys, len(keys))

    @invariant()
    def lengths_are_known(self) -> None:
        assert len(self.tree) == sum(bool(sequence) for sequence in self.model.values())
        for owner, sequence in self.model.items():
            assert self.tree.length(owner) == len(sequence)

    @invariant()
    def it_is_compact(self) -> None:
        """A run ends only where a sequence ends or two part."""
        sequences = {tuple(sequence) for sequence in self.model.values() if sequence}
        partings = {
            one[:length]
            for one in sequences
            for other in sequences
            for length in range(1, min(len(one), len(other)))
            if one[:length] == other[:length] and one[length] != other[length]
        }
        runs = self.tree.runs()
        assert set(runs) == sequences | partings
        for keys, owners in runs.items():
            assert owners == {owner for owner, sequence in self.model.items() if tuple(sequence[: len(keys)]) == keys}


TestRadix = RadixMachine.TestCase
TestRadix.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


@given(st.lists(st.tuples(OWNERS, KEYS), max_size=8))
def test_an_empty_tree_is_left_by_dropping_all(sequences: list[tuple[int, list[int]]]) -> None:
    tree = RadixTree()
    for owner, keys in sequences:
        tree.extend(owner, keys)
    for owner, _ in sequences:
        tree.drop(owner)
    assert (len(tree), tree.runs()) == (0, {})


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_nobody_is_found_in_nothing(limit: int) -> None:
    assert RadixTree().find([1, 2, 3], limit) == Holders()
