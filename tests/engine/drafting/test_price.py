"""Drafts are as long as pays: by a clock of the test's own, in which a step takes what its passes cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Seq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.batch import Batch, Run
from llamabox.engine.drafting.drafter import Draft, Source
from llamabox.engine.drafting.passes import passes
from llamabox.engine.drafting.price import LearntPrice, Offer, Step
from llamabox.engine.drafting.survival import Survival
from llamabox.engine.seams import RunnerFacts
from tests.fakes import ubatches

ALONE = 0.010
"""Seconds of a pass of one row."""


def cpu(rows: int) -> float:
    """A further row costs a quarter of a lone one."""
    return ALONE * (0.75 + 0.25 * rows)


def gpu(rows: int) -> float:
    return ALONE * (0.98 + 0.02 * rows)


class Market:
    """Steps of `n_sequences`, each with a draft of which the first `n_right` tokens come."""

    def __init__(self, cost: object = cpu, *, is_unified: bool = False) -> None:
        self.price = LearntPrice(RunnerFacts(n_batch=512, n_ubatch=512, mixes=is_unified), is_unified=is_unified)
        self.is_unified = is_unified
        self.cost = cost
        self.n_drafted: list[int] = []  # in each step
        self.seconds = 0.0
        self.n_tokens = 0

    def step(self, drafts: Seq[Draft | None], n_right: Seq[int]) -> list[int]:
        rows = [(slot, 1) for slot in range(len(drafts))]
        offers = [Offer(i, draft, len(draft.tokens)) for i, draft in enumerate(drafts) if draft]
        lengths = self.price.lengths(Step(rows, len(rows), 100), offers, 400)
        for offer, length in zip(offers, lengths, strict=True):
            rows[offer.index] = (offer.index, 1 + length)
            came = min(n_right[offer.index], length)
            n_seen = length or 1  # what was not verified is seen as well
            self.price.verified(offer.draft, n_seen, min(n_right[offer.index], n_seen))
            self.n_tokens += came
        self.n_tokens += len(rows)
        seconds = sum(self.cost(n) for n in passes(rows, 512, is_unified=self.is_unified))  # type: ignore[operator]
        self.price.computed(rows, 100, seconds)
        self.seconds += seconds
        self.n_drafted.append(sum(lengths))
        return lengths


def text(n_match: int, length: int = 64) -> Draft:
    return Draft(list(range(length)), Source.HISTORY, n_match)


@given(
    st.dictionaries(st.integers(0, 9), st.integers(1, 9), min_size=1),
    st.sampled_from([4, 7, 16, 64]),
)
def test_passes_are_those_that_libllama_makes(lengths: dict[int, int], n_ubatch: int) -> None:
    batch = Batch()
    for seq_id in sorted(lengths):
        batch.add(Run(seq_id, 0, [1] * lengths[seq_id], 1))
    if len(lengths) <= n_ubatch:
        expected = [sum(cut.values()) for cut in ubatches(batch, n_ubatch)]
        assert passes(sorted(lengths.items()), n_ubatch, is_unified=False) == expected
    together = passes(sorted(lengths.items()), n_ubatch, is_unified=True)
    assert sum(together) == sum(lengths.values())
    assert all(n == n_ubatch for n in together[:-1])


def test_what_always_comes_is_drafted_long() -> None:
    market = Market()
    for _ in range(100):
        market.step([text(20)], [64])
    assert min(market.n_drafted[-20:]) >= 16
    assert market.n_tokens / market.seconds > 2.5 / ALONE


def test_what_never_comes_is_switched_off_soon() -> None:
    market = Market()
    for _ in range(1000):
        market.step([text(20)], [0])
    assert sum(n > 0 for n in market.n_drafted) <= 20
    assert market.seconds < 1.02 * 1000 * ALONE


def test_what_begins_to_come_is_found_without_being_verified() -> None:
    market = Market()
    for _ in range(300):
        market.step([text(20)], [0])
    for _ in range(300):
        market.step([text(20)], [64])
    assert market.n_drafted[-1] >= 8


def test_beside_many_sequences_a_row_must_be_surer() -> None:
    """At 16 rows what a further row costs is what an average row costs: a token of every second one is a loss."""
    alone, crowd = Market(), Market()
    for i in range(400):
        alone.step([text(3)], [4 * (i % 3 > 0)])
        crowd.step([text(3)] * 16, [4 * ((i + k) % 3 > 0) for k in range(16)])
    assert sum(alone.n_drafted[-100:]) > 100
    assert sum(crowd.n_drafted[-100:]) / 16 < sum(alone.n_drafted[-100:]) / 2


def test_tokens_less_likely_than_the_request_wants_are_not_drafted() -> None:
    """Whatever they cost: behind a match of 5 tokens the first is less likely than the fourth."""
    price = LearntPrice(RunnerFacts(n_batch=512, n_ubatch=512, mixes=True), is_unified=True)
    step = Step([(0, 1)], 1, 100)
    price.computed([(0, 1)], 100, ALONE)
    [chance, *_] = [-one for one in Survival().curve(text(5)).falling]
    found = [price.lengths(step, [Offer(0, text(5), 64, p_min)], 64) for p_min in (0.0, chance - 0.01, chance + 0.01)]
    assert found[0] == found[1] > [0] == found[2]


def test_where_rows_cost_next_to_nothing_more_is_drafted() -> None:
    dear, cheap = Market(cpu), Market(gpu, is_unified=True)
    for i in range(300):
        for market in (dear, cheap):
            market.step([text(3)], [(3, 0, 1, 5)[i % 4]])
    assert sum(cheap.n_drafted[-50:]) > 2 * sum(dear.n_drafted[-50:])


def test_a_lone_draft_beside_others_pays_its_own_pass() -> None:
    """With streams of their own, the rows of one sequence are a pass over all weights: short drafts do not pay that."""
    streams, pool = Market(), Market(is_unified=True)
    for _ in range(200):
        for market in (streams, pool):
            market.step([None, text(20, 2), None, None], [2] * 4)
    assert sum(pool.n_drafted[-50:]) >= 90
    assert sum(streams.n_drafted[-50:]) <= 10


def test_who_gets_no_draft_waits_for_others_at_most_as_long_again() -> None:
    for is_unified in (False, True):
        market = Market(is_unified=is_unified)
        for _ in range(200):
            lengths = market.step([text(50), None, text(50), None], [64] * 4)
        rows = [(0, 1 + lengths[0]), (1, 1), (2, 1 + lengths[1]), (3, 1)]
        assert (min(lengths) > 0) == is_unified  # with streams each draft would be a pass of its own
        assert sum(cpu(n) for n in passes(rows, 512, is_unified=is_unified)) < 2.2 * cpu(4)


def test_equal_lengths_share_a_pass() -> None:
    market = Market()
    lengths: Counter[tuple[int, ...]] = Counter()
    for i in range(300):
        lengths[tuple(market.step([text(20), text(30), text(20), text(40)], [40] * 4))] += i > 200
    [(chosen, n)] = lengths.most_common(1)
    assert n > 60
    assert len(set(chosen)) == 1
    assert chosen[0] >= 4


def test_the_first_step_is_not_drafted_and_a_slow_one_is_not_believed() -> None:
    market = Market()
    assert market.step([text(40)], [64]) == [0]
    for _ in range(50):
        market.step([text(40)], [64])
    before = market.n_drafted[-1]
    market.price.computed([(0, 1 + before)], 100, 100 * cpu(1 + before))
    for _ in range(30):
        market.step([text(40)], [64])
    assert market.n_drafted[-1] >= before / 2


@settings(max_examples=50, deadline=None)
@given(
    drafts=st.lists(st.none() | st.builds(text, st.integers(1, 64), st.integers(1, 64)), min_size=1, max_size=12),
    room=st.integers(1, 60),
    is_unified=st.booleans(),
    seed=st.integers(0, 5),
)
def test_drafts_keep_within_the_room(drafts: list[Draft | None], room: int, is_unified: bool, seed: int) -> None:
    market = Market(gpu, is_unified=is_unified)
    market.step([text(64)] * 3, [64] * 3)
    offers = [Offer(i, draft, 1 + (seed + i) % 9) for i, draft in enumerate(drafts) if draft]
    step = Step([(2 * slot, 1) for slot in range(len(drafts))], len(drafts), 100)
    lengths = market.price.lengths(step, offers, room)
    assert sum(lengths) <= room
    for offer, length in zip(offers, lengths, strict=True):
        assert 0 <= length <= min(len(offer.draft.tokens), offer.n_most)


@pytest.mark.parametrize("n_sequences", [1, 4])
def test_who_comes_meanwhile_does_not_wait_long_for_the_end_of_a_step(n_sequences: int) -> None:
    """0.06 s, where a step without drafts takes less than half of that."""
    market = Market()
    for _ in range(200):
        before = market.seconds
        market.step([text(64)] * n_sequences, [64] * n_sequences)
        assert market.seconds - before <= 0.066  # what was measured is not quite what is
    assert market.n_drafted[-1] >= 12


def test_drafts_end_where_a_stream_with_a_speed_limit_is_due() -> None:
    market = Market()
    for _ in range(100):
        market.step([text(64)], [64])
    offer = Offer(0, text(64), 64)
    for left, most in ((0.001, 0.010), (0.030, 0.030), (0.060, 0.060)):
        [length] = market.price.lengths(Step([(0, 1)], 1, 100, left), [offer], 400)
        assert cpu(1 + length) <= most * 1.1
    assert length > 8


def test_survival_is_learnt_by_source_match_and_place() -> None:
    survival = Survival()
    for _ in range(200):
        survival.observe(text(3), 8, 2)
        survival.observe(text(30), 8, 8)
        survival.observe(Draft([1] * 8, Source.CORPUS, 3), 8, 0)
    assert survival.curve(text(3)).gains[8] == pytest.approx(2, abs=0.3)
    assert survival.curve(text(30)).gains[8] > 7.5
    assert survival.curve(Draft([1] * 8, Source.CORPUS, 3)).gains[8] < 0.1


def test_a_habit_is_worth_what_came_of_such() -> None:
    survival = Survival()
    answer = Draft([1] * 4, Source.CORPUS, 12, habits=(6, 0, 6, 6))
    before = survival.curve(answer).gains
    for _ in range(100):
        survival.observe(answer, 4, 1)
    [first, second, *_] = [-all_come for all_come in survival.curve(answer).falling]
    assert first > 0.95
    assert second < 0.1 < -survival.curve(Draft([1] * 4, Source.CORPUS, 12)).falling[1]
    assert len(before) == 5


def test_what_a_grammar_forces_comes_with_what_was_before_it_and_brings_less() -> None:
    curve = Survival().curve(text(3, 6))
    forced = curve.under([False, True, True, False])
    first, last = curve.chances[0], curve.chances[3]
    assert forced.falling == [-first, -first, -first, -first * last]
    assert forced.gains[3] < 3 * forced.gains[1]
    assert curve.under([]) is curve


def test_what_a_model_says_of_its_tokens_is_held_against_what_came() -> None:
    survival = Survival()
    modest = Draft([1] * 4, Source.MODEL, chances=[0.55] * 4)
    boastful = Draft([1] * 4, Source.MODEL, chances=[0.97] * 4)
    for _ in range(200):
        survival.observe(modest, 4, 4)
        survival.observe(boastful, 4, 0)
    assert survival.curve(modest).gains[4] > 3.5
    assert survival.curve(boastful).gains[4] < 0.2
