"""A draft model's drafts over a fake context: they are what the model says of the text, whatever happened before."""

from __future__ import annotations

import logging
from itertools import count
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.drafting.drafter import Draft, Key, Source, Wish
from llamabox.engine.kv.history import History
from llamabox.engine.request import DraftingParams, Media, Words
from llamabox.workers.text.drafting.chain import Lengths
from llamabox.workers.text.drafting.model import FEW, MAX_FAILURES, ModelDrafter
from llamabox.workers.text.drafting.pace import LEAST_CHUNK, Pace
from tests.workers.text.drafting.fake_context import CostlessPace, FakeDraftContext, rule

N_VOCAB = 7
EOG = 0


class Texts:
    """Texts that grow as an engine's do, and the drafter that is asked about them.

    Steps take `step` seconds, and half a second goes by whenever the clock is read; 0: no time counts.
    """

    def __init__(self, context: FakeDraftContext, lengths: Lengths, step: float = 0.0) -> None:
        self.context = context
        self.lengths = lengths
        self.step = step
        self.now = 0.0
        self.n_steps = 0
        pace = Pace(self.clock) if step else CostlessPace(self.clock)
        self.drafter = ModelDrafter(context, lengths, n_vocab=N_VOCAB, eog=frozenset({EOG}), pace=pace)
        self.cells: dict[Key, History] = {}

    def clock(self) -> float:
        self.now += 0.5
        return self.now

    def begin(self, key: Key, prompt: list[int]) -> None:
        self.cells[key] = History(prompt)

    def propose(self, n_most: int = 5, params: DraftingParams | None = None) -> dict[Key, Draft | None]:
        self.now += self.step
        self.n_steps += 1
        params = params or DraftingParams()
        wishes = [Wish(key, cells, self.n_steps, n_most, params) for key, cells in self.cells.items()]
        drafts = dict(zip(self.cells, self.drafter.propose(wishes), strict=True))
        for key, draft in drafts.items():
            if draft is not None:
                expected = self.expected(self.cells[key].keys(), n_most)
                assert (list(draft.tokens), list(draft.chances)) == expected
                assert draft.source is Source.MODEL
        self.check()
        return drafts

    def expected(self, tokens: list[int], n_most: int) -> tuple[list[int], list[float]]:
        """What the rule drafts behind a text."""
        drafted: list[int] = []
        chances: list[float] = []
        n_most = min(n_most, self.lengths.n_max, self.context.n_ctx - len(tokens))
        while len(drafted) < n_most and EOG not in drafted:
            guess = rule([*tokens, *drafted], self.context.n_vocab)
            if guess.chance < self.lengths.p_min or guess.token >= N_VOCAB:
                break
            drafted.append(guess.token)
            chances.append(guess.chance)
        return drafted, chances

    def check(self) -> None:
        """The ledger and the context say the same."""
        for place in self.drafter.places:
            assert place.tokens.tolist() == self.context.tokens(place.seq_id)
        used = [place.key for place in self.drafter.places if place.key is not None]
        assert len(used) == len(set(used))
        assert set(used) <= set(self.cells)

    def end(self, key: Key) -> None:
        del self.cells[key]
        self.drafter.forget(key, ())

    def settle(self) -> dict[Key, Draft | None]:
        """The drafts once every text is caught up with."""
        for _ in range(50):
            drafts = self.propose()
        return drafts


tokens = st.lists(st.integers(1, N_VOCAB - 1), min_size=1, max_size=60)


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[str, int, list[int]]]:
    verbs = st.sampled_from(["begin", "like", "say", "follow", "shift", "end", "fail", "propose"])
    return draw(st.lists(st.tuples(verbs, st.integers(0, 5), tokens), max_size=30))


@settings(max_examples=150, deadline=None)
@given(
    lives(),
    st.integers(1, 3),
    st.sampled_from([40, 90, 1000]),
    st.sampled_from([6, 7, 9]),
    st.sampled_from([Lengths(n_max=3), Lengths(n_max=5, p_min=0.3), Lengths(n_max=4, n_min=2)]),
)
def test_a_draft_is_what_the_model_says_of_the_text_after_any_life(
    life: list[tuple[str, int, list[int]]], n_sequences: int, n_cells: int, n_vocab: int, lengths: Lengths
) -> None:
    """Texts begin, some like others, grow by drafts and by other tokens, lose cells of their middle, and end.

    The context fails now and then, and has not room for all. `Texts.propose` compares each draft and the ledger.
    """
    context = FakeDraftContext(n_sequences, 70, n_cells=n_cells, n_vocab=n_vocab)
    texts = Texts(context, lengths)
    keys = (("r", i) for i in count())
    for verb, number, words in life:
        alive = list(texts.cells)
        key = alive[number % len(alive)] if alive else None
        if verb in ("begin", "like") or key is None:
            if len(alive) < n_sequences:
                like = texts.cells[key].keys() if verb == "like" and key else []
                texts.begin(next(keys), [*like, *words][:80])
        elif verb == "say":
            texts.cells[key].extend(words[: number + 1])
        elif verb == "follow":
            draft = texts.propose()[key]
            said = [] if draft is None else list(draft.tokens)[:number]
            texts.cells[key].extend([*said, words[0]])
        elif verb == "shift" and len(texts.cells[key]) > 4:
            texts.cells[key].discard(2, min(2 + len(words), len(texts.cells[key]) - 1))
            texts.drafter.truncated(key)
        elif verb == "end":
            texts.end(key)
        elif verb == "fail":
            context.fails = number % MAX_FAILURES  # not as often as makes it give up
            texts.propose()
            context.fails = 0
        texts.propose()


def test_a_text_that_is_caught_up_with_costs_a_row_or_two_a_step() -> None:
    context = FakeDraftContext(1, 1000)
    texts = Texts(context, Lengths(n_max=4))
    texts.begin(("r", 0), [1] * 300)
    texts.settle()
    del context.n_rows[:]
    [draft] = texts.propose(n_most=3).values()
    assert draft is not None
    texts.cells["r", 0].extend([*draft.tokens, 3])  # all of them came
    texts.propose(n_most=1)
    assert context.n_rows[-1] == 2, "the last drafted token, and the one behind it"
    texts.cells["r", 0].append(5)
    texts.propose(n_most=1)
    assert context.n_rows[-1] == 1


def test_a_long_prompt_is_caught_up_with_in_chunks_and_nobody_else_waits_for_it() -> None:
    context = FakeDraftContext(2, 1000, n_batch=512)
    texts = Texts(context, Lengths(n_max=2))
    texts.begin(("short", 0), [1, 2, 3])
    texts.begin(("long", 0), list(range(1, 6)) * 60)
    drafts = texts.propose()
    assert drafts["short", 0] is not None
    assert drafts["long", 0] is None
    assert context.n_rows[0] == 3 + LEAST_CHUNK
    assert texts.settle()["long", 0] is not None


def test_a_beginning_that_texts_have_in_common_is_computed_once() -> None:
    context = FakeDraftContext(3, 1000, n_batch=512)
    texts = Texts(context, Lengths(n_max=1))
    system = [1, 2, 3, 4] * 50
    texts.begin(("a", 0), [*system, 5])
    texts.settle()
    texts.begin(("b", 0), [*system, 6, 1])
    del context.n_rows[:]
    assert texts.propose()["b", 0] is not None
    assert context.n_rows == [1 + 2], "of the other text the row that has its guess again"
    texts.end(("a", 0))
    texts.begin(("c", 0), [*system, 5, 5, 5])
    assert texts.propose()["c", 0] is not None, "an ended text's cells are of use as well"


def test_media_and_unknown_tokens_get_no_drafts() -> None:
    context = FakeDraftContext(2, 1000, n_vocab=5)
    texts = Texts(context, Lengths(n_max=2))
    texts.cells["media", 0] = History.of((Words((1, 2)), Media(b"a picture", 3, 3), Words((1,))))
    texts.begin(("new", 0), [1, 2, 6])
    assert list(texts.settle().values()) == [None, None]
    texts.cells["media", 0].discard(0, 5)
    texts.drafter.truncated(("media", 0))
    assert texts.settle()["media", 0] is not None, "a shift took the picture away"


def test_a_request_may_want_shorter_drafts_longer_ones_or_surer_ones() -> None:
    texts = Texts(FakeDraftContext(1, 1000), Lengths(n_max=5))
    texts.begin(("r", 0), [1, 2, 3])
    assert texts.propose(params=DraftingParams(n_max=0))["r", 0] is None
    wish = Wish(("r", 0), texts.cells["r", 0], 1, 5, DraftingParams(n_max=1))
    [draft] = texts.drafter.propose([wish])
    assert draft is not None
    assert len(draft.tokens) == 1
    assert texts.propose(params=DraftingParams(p_min=1.0))["r", 0] is None
    assert texts.propose(params=DraftingParams(n_max=2, n_min=3))["r", 0] is None


def test_a_context_that_fails_costs_drafts_alone_and_is_given_up_when_it_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    context = FakeDraftContext(1, 1000)
    texts = Texts(context, Lengths(n_max=2))
    texts.begin(("r", 0), [1] * FEW)
    context.fails = 1
    assert texts.propose()["r", 0] is None
    assert texts.propose()["r", 0] is not None
    context.fails = MAX_FAILURES
    for _ in range(MAX_FAILURES):
        assert texts.propose()["r", 0] is None
    n_calls = len(context.n_rows)
    assert texts.propose()["r", 0] is None
    assert len(context.n_rows) == n_calls, "it is left alone"
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.WARNING, logging.ERROR]


def test_a_draft_goes_on_while_the_chance_of_all_of_it_is_worth_a_decode() -> None:
    """A round takes half a second here. Where a step takes four, a token must save an eighth of one."""
    found: list[float] = []
    for step in (1e6, 3.5):
        texts = Texts(FakeDraftContext(1, 1000), Lengths(n_max=8), step)
        drafts = []
        texts.begin(("r", 0), [1, 2, 3])
        for i in range(40):
            texts.now += step
            [draft] = texts.drafter.propose([Wish(("r", 0), texts.cells["r", 0], i, 8, DraftingParams())])
            drafts += [draft] if draft else []
            texts.cells["r", 0].append(i % 6 + 1)
        found.append(min(prod(draft.chances[:-1]) for draft in drafts[10:]))
    unlimited, limited = found
    assert unlimited < 0.01
    assert limited > 0.11
