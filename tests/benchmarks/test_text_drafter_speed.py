"""What the drafter without a model costs: a token of each of many sequences, and a long prompt at once."""

from __future__ import annotations

import random

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from llamabox.engine.drafting.drafter import Draft, Wish
from llamabox.engine.drafting.lookup.counts import Counts
from llamabox.engine.drafting.lookup.drafter import LookupDrafter
from llamabox.engine.drafting.text.corpus import Corpus
from llamabox.engine.drafting.text.drafter import TextDrafter
from llamabox.engine.drafting.text.index import TextIndex
from llamabox.engine.kv.history import History
from llamabox.engine.request import DraftingParams

PARAMS = DraftingParams()


@pytest.mark.parametrize("copies", [True, False], ids=["copying", "prose"])
@pytest.mark.parametrize("n_sequences", [1, 32])
def test_a_token_of_each_sequence(benchmark: BenchmarkFixture, n_sequences: int, copies: bool) -> None:
    chance = random.Random(7)
    text = [chance.randrange(50_000) for _ in range(2000)]
    drafter = TextDrafter(Corpus())
    histories = [History(text + text[:20]) for _ in range(n_sequences)]
    place = 20

    def wishes() -> list[Wish]:
        nonlocal place
        place += 1
        for history in histories:
            history.append(text[place] if copies else chance.randrange(50_000))
        return [Wish((str(i), 0), history, 5, 8, PARAMS) for i, history in enumerate(histories)]

    for _ in range(n_sequences):
        drafter.propose(wishes())  # the prompts are indexed by then

    def step() -> tuple[tuple[list[Wish]], dict[str, object]]:
        return (wishes(),), {}

    drafts = benchmark.pedantic(drafter.propose, setup=step, rounds=300)
    assert all(isinstance(draft, Draft) for draft in drafts) or not copies


def test_a_prompt_of_a_hundred_thousand_tokens(benchmark: BenchmarkFixture) -> None:
    chance = random.Random(7)
    history = History(chance.randrange(50_000) for _ in range(100_000))

    def index() -> int:
        return TextIndex(history.live_keys, 100_000).index(100_000, 100_000)

    assert benchmark.pedantic(index, rounds=10, warmup_rounds=1) == 100_000


def test_lookup_of_each_of_many_sequences(benchmark: BenchmarkFixture) -> None:
    chance = random.Random(7)
    text = [chance.randrange(50_000) for _ in range(500)]
    drafter = LookupDrafter(Counts(1))
    histories = [History(text * 2) for _ in range(32)]
    place = -1

    def step() -> tuple[tuple[list[Wish]], dict[str, object]]:
        nonlocal place
        place += 1
        for history in histories:
            history.append(text[place])
        return ([Wish((str(i), 0), history, 5, 8, PARAMS) for i, history in enumerate(histories)],), {}

    for _ in range(200):
        drafter.propose(*step()[0])
    drafts = benchmark.pedantic(drafter.propose, setup=step, rounds=100)
    assert all(draft is not None and len(draft.tokens) == 8 for draft in drafts)
