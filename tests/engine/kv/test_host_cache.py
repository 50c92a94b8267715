from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llamabox.engine.kv.history import History
from llamabox.engine.kv.host_cache import CELL_BYTES, HostCache, size
from llamabox.engine.kv.slot import SlotState
from llamabox.engine.request import LoraSet

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple)
LORAS = st.sampled_from([(), (), ((0, 1.0),)])
BUDGET = 12 * CELL_BYTES


def weight(state: SlotState) -> int:
    return size(len(state.cells), len(state.native))


def common(old: SlotState, tokens: tuple[int, ...], lora: LoraSet) -> int:
    keys = old.cells.keys()
    if old.cells.lora != lora:
        return 0
    n_most = min(len(keys), len(tokens))
    return next((i for i in range(n_most) if keys[i] != tokens[i]), n_most)


class HostCacheMachine(RuleBasedStateMachine):
    """A list of what was put, the most recently used last, is all there is to it."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = HostCache(BUDGET)
        self.model: list[SlotState] = []

    @rule(tokens=TOKENS, lora=LORAS, n_native=st.integers(0, BUDGET))
    def put(self, tokens: tuple[int, ...], lora: LoraSet, n_native: int) -> None:
        new = SlotState(History(tokens, lora), len(tokens), bytes(n_native))
        kept = self.cache.put(new)
        assert kept == (weight(new) <= BUDGET)
        if not kept:
            return
        while sum(map(weight, self.model)) + weight(new) > BUDGET:
            del self.model[0]
        self.model = [old for old in self.model if common(old, tokens, lora) < len(old.cells)]
        self.model.append(new)

    @rule(tokens=TOKENS, lora=LORAS, limit=st.integers(0, 9))
    def find(self, tokens: tuple[int, ...], lora: LoraSet, limit: int) -> None:
        kept = self.cache.find(History(tokens, lora), limit)
        lengths = [common(old, tokens[:limit], lora) for old in self.model]
        assert kept.n_cells == max(lengths, default=0)
        if kept.n_cells:
            found = self.cache.get(kept.entry)
            assert common(found, tokens[:limit], lora) == kept.n_cells
            self.model = [old for old in self.model if old is not found] + [found]

    @invariant()
    def the_budget_holds(self) -> None:
        assert self.cache.n_bytes == sum(map(weight, self.model)) <= BUDGET
        assert len(self.cache) == len(self.model)


TestHostCache = HostCacheMachine.TestCase
TestHostCache.settings = settings(max_examples=200, stateful_step_count=25, deadline=None)


def test_without_a_budget_nothing_is_kept() -> None:
    cache = HostCache(0)
    assert not cache.is_on
    assert not cache.put(SlotState(History((1,)), 1, b""))
    assert len(cache) == 0
