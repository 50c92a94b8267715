from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llamabox.engine.host_cache import TOKEN_BYTES, HostCache, size
from llamabox.engine.slot import SlotState

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple)
BUDGET = 12 * TOKEN_BYTES


def state(tokens: tuple[int, ...], n_exact: int | None = None, n_native: int = 0) -> SlotState:
    return SlotState(tokens, len(tokens) if n_exact is None else n_exact, bytes(n_native))


class HostCacheMachine(RuleBasedStateMachine):
    """A list of what was put, the most recently used last, is all there is to it."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = HostCache(BUDGET)
        self.model: list[SlotState] = []

    @rule(tokens=TOKENS, part=st.floats(0.2, 1), n_native=st.integers(0, BUDGET))
    def put(self, tokens: tuple[int, ...], part: float, n_native: int) -> None:
        new = state(tokens, max(1, int(part * len(tokens))), n_native)
        kept = self.cache.put(new)
        assert kept == (size(new) <= BUDGET)
        if not kept:
            return
        while sum(map(size, self.model)) + size(new) > BUDGET:
            del self.model[0]
        beginning = new.tokens[: new.n_exact]
        self.model = [old for old in self.model if old.tokens[: old.n_exact] != beginning[: old.n_exact]]
        self.model.append(new)

    @rule(tokens=TOKENS, limit=st.integers(0, 9))
    def find(self, tokens: tuple[int, ...], limit: int) -> None:
        kept = self.cache.find(tokens, limit)
        lengths = [common(old, tokens[:limit]) for old in self.model]
        assert kept.n_cells == max(lengths, default=0)
        if kept.n_cells:
            found = self.cache.get(kept.entry)
            assert common(found, tokens[:limit]) == kept.n_cells
            self.model = [old for old in self.model if old is not found] + [found]

    @rule(tokens=TOKENS)
    def has(self, tokens: tuple[int, ...]) -> None:
        assert self.cache.has(tokens) == any(common(old, tokens) == len(tokens) for old in self.model)

    @invariant()
    def the_budget_holds(self) -> None:
        assert self.cache.n_bytes == sum(map(size, self.model)) <= BUDGET
        assert len(self.cache) == len(self.model)


def common(old: SlotState, tokens: tuple[int, ...]) -> int:
    exact = old.tokens[: old.n_exact]
    return next(
        (i for i, (a, b) in enumerate(zip(exact, tokens, strict=False)) if a != b), min(len(exact), len(tokens))
    )


TestHostCache = HostCacheMachine.TestCase
TestHostCache.settings = settings(max_examples=200, stateful_step_count=25, deadline=None)


def test_without_a_budget_nothing_is_kept() -> None:
    cache = HostCache(0)
    assert not cache.is_on
    assert not cache.put(state((1,)))
    assert len(cache) == 0
