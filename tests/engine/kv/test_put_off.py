"""What the memory puts off makes no difference: whatever is done meanwhile comes out as if there were no waiting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

import pytest

from llamabox.engine.kv.history import History
from llamabox.engine.kv.kv_cache import KVCache
from llamabox.engine.kv.slot import Slot, SlotState
from llamabox.engine.kv.tier import host_tier
from tests.engine.driver import foreign_cells
from tests.fakes import FakeMemory

N_CTX = 64
SOURCE, TARGET, OTHER, SPARE = range(4)
TEXTS = {SOURCE: tuple(range(1, 21)), OTHER: tuple(range(101, 131))}
ELSEWHERE = tuple(range(201, 225))


@dataclass
class Bench:
    """Two slots with a text each, a state of a third text, and the states that were saved meanwhile."""

    memory: FakeMemory
    saved: list[SlotState] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cache = KVCache(self.memory, 4, N_CTX, host_budget=1_000_000)
        for slot_id, tokens in (*TEXTS.items(), (SPARE, ELSEWHERE)):
            self.compute(slot_id, tokens)
        self.elsewhere = self.cache.state(self.slot(SPARE))
        self.cache.clear(self.slot(SPARE))

    def slot(self, slot_id: int) -> Slot:
        return self.cache.slots[slot_id]

    def compute(self, slot_id: int, tokens: tuple[int, ...]) -> None:
        start = len(self.slot(slot_id).resident)
        for position, token in enumerate(tokens, start):
            self.memory.compute(slot_id, token, position)
        self.decoded()
        history = History([*self.slot(slot_id).resident.keys(), *tokens])
        self.cache.computed(self.slot(slot_id), history, start + len(tokens))

    def decoded(self) -> None:
        self.memory.carry_out()
        self.cache.carried_out()

    def save(self, slot_id: int) -> None:
        """As from outside: of an idle slot."""
        self.cache.release(self.slot(slot_id))
        self.saved.append(self.cache.state(self.slot(slot_id)))

    def restore(self, slot_id: int) -> None:
        self.cache.release(self.slot(slot_id))
        assert self.cache.restore(self.slot(slot_id), self.elsewhere)

    def take(self, slot_id: int, n_cells: int) -> None:
        self.cache.release(self.slot(slot_id))
        self.cache.take(self.slot(slot_id), n_cells)

    def copy_to(self, slot_id: int) -> None:
        self.cache.release(self.slot(slot_id))
        self.cache.copy(self.slot(OTHER), self.slot(slot_id), 25)

    def shift(self, slot_id: int) -> None:
        assert self.cache.shift(self.slot(slot_id), 3, 2)

    def detach(self, slot_id: int) -> None:
        """A shift of cells that another slot shares; in streams of their own, another shift."""
        self.cache.copy(self.slot(slot_id), self.slot(SPARE), len(self.slot(slot_id).resident))
        assert self.cache.shift(self.slot(slot_id), 7, 1)

    def wipe(self) -> None:
        for slot in self.cache.slots:
            self.cache.release(slot)
        self.cache.wipe()


PUT_OFF: dict[str, Callable[[Bench], object]] = {
    "a copy": lambda bench: bench.cache.copy(bench.slot(SOURCE), bench.slot(TARGET), 15),
    "a shift": lambda bench: bench.shift(SOURCE),
    "a copy, then a shift of its source": lambda bench: (PUT_OFF["a copy"](bench), bench.shift(SOURCE)),
    "a shift, then a copy": lambda bench: (bench.shift(SOURCE), PUT_OFF["a copy"](bench)),
    "a copy, then a shift of its target": lambda bench: (PUT_OFF["a copy"](bench), bench.shift(TARGET)),
    "two copies in a row": lambda bench: (
        PUT_OFF["a copy"](bench),
        bench.cache.copy(bench.slot(TARGET), bench.slot(SPARE), 12),
    ),
}

DEEDS: dict[str, Callable[[Bench, int], object]] = {
    "restore": Bench.restore,
    "clear": lambda bench, slot_id: bench.cache.clear(bench.slot(slot_id)),
    "truncate": lambda bench, slot_id: bench.cache.truncate(bench.slot(slot_id), 9),
    "shift": Bench.shift,
    "wipe": lambda bench, slot_id: bench.wipe(),
    "save": Bench.save,
    "release": lambda bench, slot_id: bench.cache.release(bench.slot(slot_id)),
    "take all": lambda bench, slot_id: bench.take(slot_id, N_CTX),
    "take a part, keep the rest in host memory": lambda bench, slot_id: bench.take(slot_id, 2),
    "detach": Bench.detach,
    "copy from it": lambda bench, slot_id: bench.cache.copy(bench.slot(slot_id), bench.slot(SPARE), 12),
    "copy to it": Bench.copy_to,
    "drop what is free": lambda bench, slot_id: list(iter(bench.cache.drop_free, 0)),
    "clear, then restore": lambda bench, slot_id: (bench.cache.clear(bench.slot(slot_id)), bench.restore(slot_id)),
    "copy to it, then restore the source of that": lambda bench, slot_id: (
        bench.copy_to(slot_id),
        bench.restore(OTHER),
    ),
    "wipe, then restore": lambda bench, slot_id: (bench.wipe(), bench.restore(slot_id)),
}


PAIRS = [*product([name for name in PUT_OFF if name != "a shift"], [SOURCE, TARGET]), ("a shift", SOURCE)]


@pytest.fixture(autouse=True)
def small_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tier, "WORTH_KEEPING", 4)


def outcome(
    put_off: str, deed: str, slot_id: int, *, unified: bool, at_once: bool
) -> list[tuple[list[int], list[int]]]:
    """The cells of each slot and of each state that was kept or saved, as (tokens, contents), when all is done."""
    bench = Bench(FakeMemory(unified=unified))
    PUT_OFF[put_off](bench)
    if at_once:
        bench.decoded()
    bench.cache.release(bench.slot(SPARE))
    DEEDS[deed](bench, slot_id)
    assert bench.cache.check_integrity() == []
    assert foreign_cells(bench.cache, bench.memory) == []
    bench.decoded()
    found = [(slot.resident.keys(), bench.memory.contents(slot.slot_id)) for slot in bench.cache.slots]
    for state in (*bench.saved, *bench.cache._host._states.values()):
        assert bench.cache.restore(idle(bench.slot(SPARE)), state)
        bench.decoded()
        found.append((bench.slot(SPARE).resident.keys(), bench.memory.contents(SPARE)))
    assert foreign_cells(bench.cache, bench.memory) == []
    return found


def idle(slot: Slot) -> Slot:
    slot.is_busy = False
    return slot


@pytest.mark.parametrize("unified", [False, True], ids=["streams", "pool"])
@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize(("put_off", "slot_id"), PAIRS)
def test_it_comes_out_as_if_nothing_had_been_put_off(put_off: str, deed: str, slot_id: int, unified: bool) -> None:
    expected = outcome(put_off, deed, slot_id, unified=unified, at_once=True)
    found = outcome(put_off, deed, slot_id, unified=unified, at_once=False)
    # A slot that is released before its cells are there loses them.
    assert [got for got in found if got not in expected and got != ([], [])] == []
