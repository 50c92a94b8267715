"""The ledger and the native memory, which must tell the same story whatever is done to them."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llamabox.engine.kv.copy_time import MIN_COPY
from llamabox.engine.kv.history import History
from llamabox.engine.kv.kv_cache import KVCache
from llamabox.engine.kv.slot import Slot
from llamabox.engine.kv.tier import host_tier
from llamabox.engine.request import Media, Words
from tests.engine.driver import said_by
from tests.fakes import Cell, FakeMemory, content_of

N_SLOTS = 3
N_CTX = 16

Memorised = tuple[int, int, int]  # (token, position, value)


class Store:
    """A cache over a fake memory, and beside it what each slot must hold, kept by the plainest means."""

    def __init__(self, memory: FakeMemory) -> None:
        self.memory = memory
        self.cache = KVCache(memory, N_SLOTS, N_CTX)
        self.held: list[list[Memorised]] = [[] for _ in range(N_SLOTS)]
        self.exact: list[int] = [0] * N_SLOTS

    def slot(self, slot_id: int) -> Slot:
        return self.cache.slots[slot_id]

    def keep(self, slot_id: int, n_cells: int) -> None:
        del self.held[slot_id][n_cells:]
        self.exact[slot_id] = min(self.exact[slot_id], n_cells)

    def compute(self, slot_id: int, tokens: list[int]) -> None:
        """What a decode does: what was put off, fill the memory, then the ledger."""
        self.memory.begin()
        self.cache.carried_out()
        slot = self.slot(slot_id)
        start = len(slot.resident)
        tokens = tokens[: min(N_CTX - start, self.memory.n_cells - len(self.memory.cells))]
        history = History(slot.resident.keys() + tokens)
        for position, token in enumerate(tokens, start):
            value = self.memory.compute(slot_id, token, position)
            self.held[slot_id].append((token, position, value))
        self.memory.make_place(slot_id, start + len(tokens) - 1)
        self.cache.computed(slot, history, start + len(tokens))
        if self.exact[slot_id] == start:
            self.exact[slot_id] = start + len(tokens)

    def shift(self, slot_id: int, n_keep: int, n_discard: int) -> bool:
        if not self.cache.shift(self.slot(slot_id), n_keep, n_discard):
            self.held[slot_id].clear()
            self.exact[slot_id] = 0
            return False
        held = self.held[slot_id]
        moved = [(token, position - n_discard, value) for token, position, value in held[n_keep + n_discard :]]
        self.held[slot_id] = held[:n_keep] + moved
        self.exact[slot_id] = min(self.exact[slot_id], n_keep)
        return True

    def check(self) -> None:
        assert self.cache.check_integrity() == []
        for slot, held in zip(self.cache.slots, self.held, strict=True):
            assert slot.resident.keys() == [token for token, _, _ in held]
            seen = self.memory.contents(slot.slot_id)
            expected = [content_of(value, position) for _, position, value in held]
            # A sliding window forgets the beginning; what is left must be the end.
            assert seen == (expected[-len(seen) :] if self.memory.n_window and seen else expected)
            assert slot.n_exact == self.exact[slot.slot_id]


tokens = st.lists(st.integers(1, 3), min_size=1, max_size=6)
slot_ids = st.integers(0, N_SLOTS - 1)
counts = st.integers(0, N_CTX)


class Bookkeeping(RuleBasedStateMachine):
    """Any order of operations, on memories of every kind."""

    @initialize(
        kind=st.sampled_from(
            [{}, {}, {"unified": False}, {"partial_removal": False}, {"can_shift": False, "n_window": 4}]
        ),
        n_cells=st.sampled_from([24, 1000]),
        quicker=st.sampled_from([1, 1000]),
    )
    def start(self, kind: dict[str, object], n_cells: int, quicker: int) -> None:
        self.patch = mock.patch.object(host_tier, "QUICKER", quicker)
        self.patch.start()
        self.store = Store(FakeMemory(n_cells=n_cells, **kind))  # type: ignore[arg-type]

    @rule(slot_id=slot_ids, n_cells=counts)
    def take(self, slot_id: int, n_cells: int) -> None:
        slot = self.store.slot(slot_id)
        if not slot.is_busy:
            n_before = len(slot.resident)
            n_kept = self.store.cache.take(slot, n_cells)
            self._kept(slot, min(n_cells, n_before), n_kept, whole=n_cells >= n_before)
            assert slot.is_busy

    @rule(slot_id=slot_ids, n_cells=counts)
    def truncate(self, slot_id: int, n_cells: int) -> None:
        slot = self.store.slot(slot_id)
        n_before = len(slot.resident)
        n_kept = self.store.cache.truncate(slot, n_cells)
        self._kept(slot, min(n_cells, n_before), n_kept, whole=n_cells >= n_before)

    @rule(source_id=slot_ids, target_id=slot_ids, data=st.data())
    def copy(self, source_id: int, target_id: int, data: st.DataObject) -> None:
        source, target = self.store.slot(source_id), self.store.slot(target_id)
        if source is target or target.is_busy:
            return
        n_cells = data.draw(st.integers(0, len(source.resident)))
        n_kept = self.store.cache.copy(source, target, n_cells)
        if not self.store.memory.is_unified:
            n_cells = n_cells if n_cells >= MIN_COPY else 0
        self.store.held[target_id] = list(self.store.held[source_id]) if n_cells else []
        self.store.exact[target_id] = self.store.exact[source_id] if n_cells else 0
        self._kept(target, n_cells, n_kept, whole=n_cells == len(source.resident))
        assert target.is_busy

    @rule(slot_id=slot_ids, cells=tokens)
    def compute(self, slot_id: int, cells: list[int]) -> None:
        self.store.compute(slot_id, cells)

    @precondition(lambda self: self.store.cache.can_shift)
    @rule(slot_id=slot_ids, data=st.data())
    def shift(self, slot_id: int, data: st.DataObject) -> None:
        n_cells = len(self.store.slot(slot_id).resident)
        if n_cells:
            n_keep = data.draw(st.integers(0, n_cells - 1))
            self.store.shift(slot_id, n_keep, data.draw(st.integers(1, n_cells - n_keep)))

    @rule(slot_id=slot_ids)
    def release(self, slot_id: int) -> None:
        is_late = not self.store.cache.may_save(self.store.slot(slot_id))
        self.store.cache.release(self.store.slot(slot_id))
        if is_late:
            self.store.keep(slot_id, 0)
        assert self.store.slot(slot_id) in self.store.cache.free_slots()

    @rule(slot_id=slot_ids)
    def clear(self, slot_id: int) -> None:
        self.store.cache.clear(self.store.slot(slot_id))
        self.store.keep(slot_id, 0)

    @precondition(lambda self: not self.store.memory.n_window)
    @rule(source_id=slot_ids, target_id=slot_ids)
    def save_and_restore(self, source_id: int, target_id: int) -> None:
        source, target = self.store.slot(source_id), self.store.slot(target_id)
        if source.is_busy or target.is_busy or not (self.store.cache.may_save(source) or not len(source.resident)):
            return  # the last is of this test's making: in truth only a busy slot is shifted
        state = self.store.cache.state(source)
        held, exact = list(self.store.held[source_id]), self.store.exact[source_id]
        is_whole = self.store.cache.restore(target, state)
        self.store.held[target_id] = held if is_whole else []
        self.store.exact[target_id] = exact if is_whole else 0

    @rule()
    def drop_free(self) -> None:
        """Those of the slot that was used least recently."""
        held = [slot for slot in self.store.cache.slots if not slot.is_busy and self.store.held[slot.slot_id]]
        oldest = min(held, key=lambda slot: slot.last_used, default=None)
        assert self.store.cache.drop_free() == (len(self.store.held[oldest.slot_id]) if oldest else 0)
        if oldest is not None:
            self.store.keep(oldest.slot_id, 0)

    @rule(slot_id=slot_ids)
    def give_up(self, slot_id: int) -> None:
        """What is exact can be computed anew, so that it need not be saved."""
        slot = self.store.slot(slot_id)
        if slot.is_busy:
            saved = self.store.cache.give_up(slot)
            assert saved is None or len(saved.cells) == len(self.store.held[slot_id]) > self.store.exact[slot_id]
            assert not slot.is_busy
            self.store.keep(slot_id, 0)

    def _kept(self, slot: Slot, asked: int, n_kept: int, *, whole: bool) -> None:
        """`n_kept` cells stayed of the `asked` ones: all of them, or none where the memory may refuse a part."""
        memory = self.store.memory
        refuses = not memory.partial_removal or memory.n_window
        assert n_kept == asked or (n_kept == 0 and refuses and not whole)
        assert n_kept == len(slot.resident)
        self.store.keep(slot.slot_id, n_kept)

    @invariant()
    def ledger_and_memory_agree(self) -> None:
        self.store.check()

    def teardown(self) -> None:
        self.patch.stop()


TestBookkeeping = Bookkeeping.TestCase
TestBookkeeping.settings = settings(max_examples=120, stateful_step_count=25, deadline=None)


def test_a_memory_that_refuses_a_part_gives_up_the_whole() -> None:
    store = Store(FakeMemory(partial_removal=False))
    store.compute(0, [1, 2, 3, 4])
    assert store.cache.take(store.slot(0), 4) == 4
    store.cache.release(store.slot(0))
    assert store.cache.take(store.slot(0), 3) == 0
    assert store.memory.of(0) == []
    assert store.cache.check_integrity() == []


@pytest.mark.parametrize(("n_kept", "expected"), [(12, 12), (11, 0), (8, 0), (0, 0)])
def test_a_sliding_window_that_forgot_what_is_needed_is_computed_again(n_kept: int, expected: int) -> None:
    store = Store(FakeMemory(n_window=4, can_shift=False))
    store.compute(0, [1] * 12)
    assert store.cache.truncate(store.slot(0), n_kept) == expected
    assert store.cache.check_integrity() == []


def test_a_sliding_window_that_forgot_nothing_yet_may_be_cut() -> None:
    store = Store(FakeMemory(n_window=4, can_shift=False))
    store.compute(0, [1, 2, 3, 4])
    assert store.cache.truncate(store.slot(0), 2) == 2


def shares(one: list[Cell], other: list[Cell]) -> int:
    return sum(cell in other for cell in one)


def test_a_copy_shares_the_cells_and_both_sides_know() -> None:
    store = Store(FakeMemory())
    store.compute(0, [1, 2, 3, 4, 5])
    assert store.cache.copy(store.slot(0), store.slot(1), 3) == 3
    assert shares(store.memory.of(0), store.memory.of(1)) == 3
    assert (store.slot(0).n_shared, store.slot(1).n_shared) == (3, 3)


@pytest.mark.parametrize("shifted", [0, 1])
def test_shared_cells_are_never_moved_for_the_other_slot(shifted: int) -> None:
    store = Store(FakeMemory())
    store.compute(0, [1, 2, 3, 4, 5, 6])
    store.cache.copy(store.slot(0), store.slot(1), 6)
    store.held[1], store.exact[1] = list(store.held[0]), 6
    assert store.shift(shifted, 1, 2)
    store.check()
    assert shares(store.memory.of(0), store.memory.of(1)) == 0
    assert store.slot(shifted).n_shared == 0


def test_a_smaller_copy_does_not_make_a_larger_one_forgotten() -> None:
    store = Store(FakeMemory())
    store.compute(0, [1, 2, 3, 4, 5, 6])
    for target, n_cells in ((1, 6), (2, 2)):
        store.cache.copy(store.slot(0), store.slot(target), n_cells)
        store.held[target], store.exact[target] = store.held[0][:n_cells], n_cells
    assert store.shift(0, 1, 2)
    store.check()


def test_shared_cells_that_stay_where_they_are_stay_shared() -> None:
    store = Store(FakeMemory())
    store.compute(0, [1, 2, 3, 4, 5, 6])
    store.cache.copy(store.slot(0), store.slot(1), 3)
    store.held[1], store.exact[1] = store.held[0][:3], 3
    assert store.shift(0, 2, 2)  # the third cell is dropped here, not moved
    store.check()
    assert shares(store.memory.of(0), store.memory.of(1)) == 2


def test_a_shift_without_room_for_cells_of_its_own_leaves_an_empty_slot() -> None:
    store = Store(FakeMemory(n_cells=8))
    store.compute(0, [1, 2, 3, 4, 5, 6])
    store.cache.copy(store.slot(0), store.slot(1), 6)
    store.held[1], store.exact[1] = list(store.held[0]), 6
    assert not store.shift(0, 1, 2)
    store.check()
    assert len(store.slot(0).resident) == 0
    assert len(store.slot(1).resident) == 6


def test_after_a_shift_only_the_cells_before_the_gap_are_as_a_fresh_evaluation_would_make_them() -> None:
    store = Store(FakeMemory())
    store.compute(0, [1, 2, 3, 4, 5, 6])
    assert store.slot(0).n_exact == 6
    store.shift(0, 2, 2)
    assert store.slot(0).n_exact == 2
    store.compute(0, [7, 8])
    assert store.slot(0).n_exact == 2
    store.cache.copy(store.slot(0), store.slot(1), 4)
    assert store.slot(1).n_exact == 2
    store.cache.truncate(store.slot(0), 2)
    store.keep(0, 2)
    store.compute(0, [3])
    assert store.slot(0).n_exact == 3


@given(st.lists(tokens, min_size=N_SLOTS, max_size=N_SLOTS), tokens)
def test_the_match_is_the_slot_that_holds_most_of_the_prompt(held: list[list[int]], prompt: list[int]) -> None:
    store = Store(FakeMemory())
    for slot_id, cells in enumerate(held):
        store.compute(slot_id, cells)
    limit = len(prompt) - 1
    common = [len([1 for i in range(1, limit + 1) if cells[:i] == prompt[:i]]) for cells in held]
    match = store.cache.match(History(prompt), limit)
    assert match.n_cells == max(common)
    assert match.slot is None if max(common) == 0 else common[match.slot.slot_id] == max(common)


def test_among_equal_matches_a_free_slot_wins() -> None:
    store = Store(FakeMemory())
    for slot_id in range(N_SLOTS):
        store.compute(slot_id, [1, 2, 3])
    store.cache.take(store.slot(0), 3)
    store.cache.take(store.slot(2), 3)
    assert store.cache.match(History([1, 2, 3, 4]), 3).slot is store.slot(1)


def test_free_slots_come_least_recently_used_first_and_empty_ones_before_all() -> None:
    store = Store(FakeMemory())
    for slot_id in (1, 0):
        store.cache.take(store.slot(slot_id), 0)
        store.compute(slot_id, [1, 2])
        store.cache.release(store.slot(slot_id))
    assert [slot.slot_id for slot in store.cache.free_slots()] == [2, 1, 0]
    store.cache.copy(store.slot(1), store.slot(2), 2)  # to be copied is to be used
    assert [slot.slot_id for slot in store.cache.free_slots()] == [0, 1]
    store.cache.clear(store.slot(2))
    store.cache.release(store.slot(2))
    assert [slot.slot_id for slot in store.cache.free_slots()] == [2, 0, 1]
    store.cache.take(store.slot(0), 2)
    assert [slot.slot_id for slot in store.cache.free_slots()] == [2, 1]


def test_a_ledger_that_differs_from_the_memory_is_named() -> None:
    store = Store(FakeMemory())
    store.compute(1, [1, 2, 3])
    store.memory.seq_rm(1, 2, -1)
    assert store.cache.check_integrity() == ["slot 1: ledger ends at position 2, memory at 1"]


def with_media() -> tuple[KVCache, FakeMemory, History]:
    """A slot with two tokens, a chunk of four cells at two positions, two tokens, and half of the chunk again."""
    chunk = Media(b"a", 4, 2)
    history = History.of((Words((1, 2)), chunk, Words((3, 4)), chunk))
    memory = FakeMemory()
    cache = KVCache(memory, N_SLOTS, N_CTX)
    for cell, said in enumerate(said_by(history, 10)):
        memory.compute(0, said, history.position(cell))
    cache.computed(cache.slots[0], history, 10)
    return cache, memory, history


@pytest.mark.parametrize(
    ("asked", "n_kept", "last"),
    [(10, 8, 5), (9, 8, 5), (8, 8, 5), (7, 7, 4), (6, 6, 2), (5, 2, 1), (3, 2, 1), (2, 2, 1)],
)
def test_a_media_chunk_stays_whole_or_goes(asked: int, n_kept: int, last: int) -> None:
    cache, memory, history = with_media()
    assert cache.check_integrity() == []
    assert cache.match(history, len(history)).n_cells == 8, "a prompt cannot start inside a chunk"
    assert cache.truncate(cache.slots[0], asked) == n_kept
    assert memory.seq_pos_max(0) == last
    assert cache.check_integrity() == []
    assert cache.match(history, len(history)).n_cells == n_kept


@pytest.mark.parametrize(
    ("n_keep", "n_discard", "dropped"), [(0, 1, (0, 1)), (1, 2, (1, 6)), (3, 1, (2, 6)), (4, 3, (2, 7)), (6, 2, (6, 8))]
)
def test_a_shift_drops_media_chunks_whole_and_says_which_cells_went(
    n_keep: int, n_discard: int, dropped: tuple[int, int]
) -> None:
    cache, memory, history = with_media()
    slot = cache.slots[0]
    cache.truncate(slot, 8)
    assert cache.shift(slot, n_keep, n_discard) == range(*dropped)
    history.truncate(8)
    history.discard(*dropped)
    assert slot.resident.keys() == history.keys()
    assert cache.check_integrity() == []
    assert [cell.said for cell in memory.of(0)] == list(said_by(history, len(history)))
