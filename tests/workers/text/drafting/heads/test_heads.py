"""A head's drafts over a fake context: what it says of the text's own hidden rows, whatever happened before."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.batch import Run
from llamabox.engine.drafting.drafter import Draft, Source, Wish
from llamabox.engine.kv.history import History
from llamabox.engine.request import DraftingParams
from llamabox.workers.text.drafting.chain import Lengths
from llamabox.workers.text.drafting.heads.cells import FEW, PATIENCE, HeadCells
from llamabox.workers.text.drafting.heads.drafter import FIRST_WINDOW, MAX_FAILURES, HeadDrafter
from llamabox.workers.text.drafting.heads.seams import NextPair, Pairs
from llamabox.workers.text.drafting.pace import Pace
from tests.workers.text.drafting.fake_context import CostlessPace
from tests.workers.text.drafting.heads.fake_context import N_VOCAB, UNKNOWN, FakeHeadsContext, hidden, rule

EOG = 0
N_SEQUENCES = 3
LENGTHS = Lengths(n_max=4, p_min=0.05)


class Model:
    """The model's sequences, whose tokens are said one by one, and the drafter that follows its memory."""

    def __init__(
        self, context: FakeHeadsContext | None = None, lengths: Lengths = LENGTHS, eog: Sequence[int] = (EOG,)
    ) -> None:
        self.context = context or FakeHeadsContext(N_SEQUENCES)
        self.lengths = lengths
        self.cells = HeadCells(self.context, N_SEQUENCES)
        self.drafter = HeadDrafter(self.cells, lengths, n_vocab=N_VOCAB, eog=frozenset(eog), pace=CostlessPace())
        self.texts: list[list[int]] = [[] for _ in range(N_SEQUENCES)]  # with a last token that is not computed
        self.n_said = 0

    def compute(self, new: dict[int, list[int]]) -> None:
        """These tokens are said, and a batch computes all that was said before the last one."""
        self.cells.take()
        runs: list[Run] = []
        numbers: list[int] = []
        for seq_id, tokens in new.items():
            text = self.texts[seq_id]
            start = max(len(text) - 1, 0)
            text += tokens
            if content := text[start:-1]:
                runs.append(Run(seq_id, start, content, 1))
                numbers += [hidden(text[: start + i + 1]) for i in range(len(content))]
        self.context.model_rows = numbers if self.context.is_keeping else None
        self.cells.computed(runs)

    def propose(self, n_most: int = 5) -> dict[int, Draft | None]:
        """Ask for drafts of all texts that a model would write on."""
        self.n_said += 1
        wishes = [
            Wish((f"r{seq_id}", 0), History(text), self.n_said, n_most, DraftingParams(), seq_id)
            for seq_id, text in enumerate(self.texts)
            if text
        ]
        self.cells.take()
        known = [int(follower.last[0, 0]) for follower in self.cells.followers]
        drafts = dict(zip((wish.seq_id for wish in wishes), self.drafter.propose(wishes), strict=True))
        for seq_id, draft in drafts.items():
            if draft is not None:
                expected = self.expected(known[seq_id], self.texts[seq_id][-1], n_most)
                n_tokens = len(expected[0]) if isinstance(self.drafter.pace, CostlessPace) else len(draft.tokens)
                assert (list(draft.tokens), list(draft.chances)) == tuple(part[:n_tokens] for part in expected)
                assert draft.source is Source.MTP
        self.check()
        return drafts

    def expected(self, number: int, token: int, n_most: int) -> tuple[list[int], list[float]]:
        """What the rule drafts behind `token`, whose hidden row in front is `number`."""
        tokens: list[int] = []
        chances: list[float] = []
        while len(tokens) < min(n_most, self.lengths.n_max) and EOG not in tokens:
            guess, number = rule(number, token)
            token = guess.token
            if guess.chance < self.lengths.p_min:
                break
            tokens.append(token)
            chances.append(guess.chance)
        return tokens, chances

    def check(self) -> None:
        """All cells are of the text's own tokens at their positions, and of their own hidden rows if of any.

        The token that a draft begins with may have been replaced since.
        """
        for follower, text, cells in zip(self.cells.followers, self.texts, self.context.cells, strict=True):
            assert follower.n_seen <= max(len(text) - 1, 0)
            assert not cells or cells[-1][0] == follower.n_done - 1
            for position, token, number in cells:
                assert text[position] == token or position == follower.n_seen
                assert number in (UNKNOWN, hidden(text[:position]))
            if follower.last.any():
                assert int(follower.last[0, 0]) == hidden(text[: follower.n_seen])


TOKENS = st.lists(st.integers(1, N_VOCAB - 1), min_size=1, max_size=12)
SEQ_IDS = st.integers(0, N_SEQUENCES - 1)


@given(st.data())
@settings(max_examples=200)
def test_drafts_are_the_heads_whatever_happened_before(data: st.DataObject) -> None:
    model = Model(FakeHeadsContext(N_SEQUENCES, n_cells=data.draw(st.sampled_from([20, 1000])), n_batch=6))
    for _ in range(data.draw(st.integers(1, 25))):
        what = data.draw(st.sampled_from(["say", "say", "say", "propose", "propose", "cut", "copy", "move", "clear"]))
        seq_id = data.draw(SEQ_IDS)
        text = model.texts[seq_id]
        if what == "say":
            model.compute({seq_id: data.draw(TOKENS), (seq_id + 1) % N_SEQUENCES: data.draw(TOKENS)})
        elif what == "propose":
            model.propose()
        elif what == "cut" and len(text) > 1:
            n_cells = data.draw(st.integers(0, len(text) - 1))
            model.cells.cut(seq_id, n_cells)
            model.texts[seq_id] = [*text[:n_cells], data.draw(st.integers(1, N_VOCAB - 1))]
        elif what == "copy":
            other = (seq_id + 1) % N_SEQUENCES
            model.cells.copied(seq_id, other)
            model.texts[other] = list(text)
        elif what == "move":  # another text, of a saved state
            model.cells.moved(seq_id)
            model.texts[seq_id] = data.draw(TOKENS)
        elif what == "clear":
            model.cells.cleared()
            model.texts = [[] for _ in model.texts]
        model.check()


def test_a_text_that_was_seen_from_its_beginning_has_all_its_cells_and_rows() -> None:
    model = Model()
    for tokens in ([1, 2, 3, 4], [5], [6, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6], [2]):
        model.compute({0: tokens})
    assert model.propose()[0] is not None
    text = model.texts[0]
    numbers = [UNKNOWN, *(hidden(text[:position]) for position in range(1, len(text)))]
    assert model.context.cells[0] == list(zip(range(len(text)), text, numbers, strict=True))


def test_a_rejected_tail_leaves_the_hidden_row_of_the_last_token_that_came() -> None:
    model = Model()
    model.compute({0: [1, 2, 3]})
    model.propose()
    model.compute({0: [4, 5, 6, 1]})  # the last token, and a draft of three with one behind it
    text = model.texts[0]
    model.cells.cut(0, 4)
    model.texts[0] = [*text[:4], 2]
    assert model.propose()[0] is not None
    assert int(model.cells.followers[0].last[0, 0]) == hidden(text[:4])
    assert [cell[:2] for cell in model.context.cells[0]] == list(enumerate([1, 2, 3, 4, 2]))


def test_a_draft_is_asked_for_again_before_one_was_verified() -> None:
    model = Model()
    model.compute({0: [1, 2, 3]})
    assert model.propose() == model.propose()


def test_cells_that_came_without_rows_are_begun_behind() -> None:
    model = Model()
    model.compute({0: [1, 2, 3]})
    model.cells.moved(0)
    model.texts[0] = [4, 5, 6, 1, 2]
    assert model.propose()[0] is None
    model.compute({0: [3]})
    assert model.propose()[0] is not None
    assert [cell[:2] for cell in model.context.cells[0]] == [(4, 2), (5, 3)]


def test_prompts_are_computed_as_they_come_and_single_tokens_few_at_a_time() -> None:
    model = Model()
    model.compute({0: [1] * 14})
    model.cells.take()
    assert model.context.n_calls == 1
    for _ in range(2 * FEW):
        model.compute({0: [1]})
    assert model.context.n_calls == 2


def test_the_model_keeps_no_rows_while_nobody_wants_drafts() -> None:
    model = Model()
    model.compute({0: [1, 2, 3]})
    assert model.propose()[0] is not None
    for _ in range(PATIENCE + 1):
        model.compute({0: [1]})
    assert not model.context.is_keeping
    assert model.propose()[0] is None
    assert model.context.is_keeping
    model.compute({0: [1]})
    assert model.propose()[0] is not None


def test_without_room_there_are_no_drafts_in_this_step() -> None:
    model = Model(FakeHeadsContext(N_SEQUENCES, n_cells=0))
    model.compute({0: [1, 2, 3, 4, 5, 6]})
    assert model.propose()[0] is None
    model.context.n_cells = 1000
    assert model.propose()[0] is not None


def test_a_head_that_keeps_failing_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    model = Model()
    model.context.fails = MAX_FAILURES
    for _ in range(MAX_FAILURES):
        model.compute({0: [1, 2, 3]})
        assert model.propose()[0] is None
    model.compute({0: [1, 2, 3]})
    assert model.propose()[0] is None
    assert not model.context.is_keeping
    assert caplog.messages == [
        "no drafts of the model's heads in steps where they cannot compute: broken",
        "the model's heads are given up: broken",
    ]


class Clock:
    """Time that goes by where somebody computes."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowContext(FakeHeadsContext):
    """Each computation takes so many seconds."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(N_SEQUENCES)
        self.clock = clock
        self.seconds = 0.0

    def compute(self, parts: Sequence[Pairs]) -> list[NextPair | None]:
        self.clock.now += self.seconds
        return super().compute(parts)


def test_drafts_of_one_token_become_longer_again_as_soon_as_a_round_takes_less() -> None:
    """A busy machine, or the first pass of all, may make a round seem to take longer than it does."""
    clock = Clock()
    context = SlowContext(clock)
    model = Model(context, Lengths(n_max=8))
    model.drafter.pace = Pace(clock)
    context.seconds = 5.0
    lengths = []
    for _ in range(60):
        model.compute({0: [1]})
        clock.now += 1.0
        draft = model.propose()[0]
        lengths.append(0 if draft is None else len(draft.tokens))
        if len(lengths) == 20:
            context.seconds = 0.001
    assert max(lengths[10:20]) == 1
    assert max(lengths[40:]) > 1


def test_drafts_are_about_as_long_as_what_is_verified_of_them() -> None:
    model = Model(lengths=Lengths(n_max=32), eog=())
    key, cells = ("r0", 0), History([1, 2, 3])

    def length() -> int:
        [draft] = model.drafter.propose([Wish(key, cells, 1, 32, DraftingParams(), 0)])
        return 0 if draft is None else len(draft.tokens)

    whole = Draft([1] * FIRST_WINDOW, Source.MTP, chances=[1.0] * FIRST_WINDOW)
    model.compute({0: [1, 2, 3]})
    assert length() == FIRST_WINDOW
    model.drafter.accepted(key, whole, FIRST_WINDOW, FIRST_WINDOW)
    assert length() == FIRST_WINDOW + 1
    model.drafter.accepted(key, whole, FIRST_WINDOW, 1)
    assert length() == FIRST_WINDOW + 1
    model.drafter.accepted(key, whole, 1, 1)
    assert length() == 2


def test_a_draft_ends_where_it_costs_more_than_it_brings() -> None:
    class Dear(CostlessPace):
        @property
        def least_chance(self) -> float:
            return 0.4

    model = Model(lengths=Lengths(n_max=8))
    model.drafter.pace = Dear()
    model.compute({0: [1, 2, 3]})
    model.cells.take()
    [draft] = model.drafter.propose([Wish(("r0", 0), History(model.texts[0]), 1, 8, DraftingParams(), 0)])
    assert draft is not None
    assert prod(draft.chances[:-1]) >= 0.4 or len(draft.tokens) == 1
