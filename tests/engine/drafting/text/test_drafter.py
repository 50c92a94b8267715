"""Drafts are what stood behind the same words before, in texts that the sequence may know."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.drafting.drafter import Draft, Source, Wish
from llamabox.engine.drafting.text.corpus import N_AUDIENCES, Corpus, Shelf
from llamabox.engine.drafting.text.drafter import BULK, TextDrafter
from llamabox.engine.drafting.text.follower import Follower
from llamabox.engine.kv.history import History
from llamabox.engine.request import DraftingParams, Media, Words

words = st.lists(st.integers(0, 4), max_size=24)


class Speaker:
    """A sequence as the engine treats it, and the drafter that it asks."""

    def __init__(
        self, drafter: TextDrafter, prompt: Seq[int], name: str = "r", params: DraftingParams | None = None
    ) -> None:
        self.drafter = drafter
        self.cells = History(prompt)
        self.key = (name, 0)
        self.params = params or DraftingParams()
        self.said: list[int] = []

    def say(self, *tokens: int) -> None:
        self.cells.extend(tokens)
        self.said += tokens

    def wish(self, n_most: int = 8) -> Wish:
        return Wish(self.key, self.cells, len(self.said), n_most, self.params)

    def draft(self, n_most: int = 8) -> Draft | None:
        [draft] = self.drafter.propose([self.wish(n_most)])
        return draft

    def shift(self, start: int, stop: int) -> None:
        self.cells.discard(start, stop)
        self.drafter.truncated(self.key)

    def end(self) -> None:
        self.drafter.forget(self.key, self.said)


def finished(drafter: TextDrafter, said: Seq[int], name: str = "old", audience: str = "") -> None:
    """Let another sequence of this `audience` say something."""
    other = Speaker(drafter, [7], name, DraftingParams(audience=audience))
    other.say(*said)
    other.draft()
    other.end()


def test_who_repeats_his_prompt_has_it_drafted() -> None:
    speaker = Speaker(TextDrafter(), [*range(100, 130), 5, 6])
    speaker.say(104, 105)
    assert speaker.draft(4) == Draft([106, 107, 108, 109], Source.HISTORY, 2)
    speaker.say(106, 107, 108)
    assert speaker.draft(2) == Draft([109, 110], Source.HISTORY, 5)


def test_of_equal_matches_the_latest_counts_and_of_others_the_longest() -> None:
    speaker = Speaker(TextDrafter(), [1, 2, 3, 50, 9, 2, 3, 60, 8, 2, 3, 70, 0])
    speaker.say(2, 3)
    assert speaker.draft(1) == Draft([70], Source.HISTORY, 2)
    speaker = Speaker(TextDrafter(), [1, 2, 3, 50, 9, 2, 3, 60, 8, 2, 3, 70, 0])
    speaker.say(1, 2, 3)
    assert speaker.draft(1) == Draft([50], Source.HISTORY, 3)


def test_who_repeats_himself_has_the_repetition_drafted() -> None:
    speaker = Speaker(TextDrafter(), [9])
    speaker.say(1, 2, 3, 1, 2)
    assert speaker.draft(8) == Draft([3, 1, 2, 3, 1, 2, 3, 1], Source.HISTORY, 2)


def test_behind_a_change_the_copy_goes_on() -> None:
    speaker = Speaker(TextDrafter(), [*range(100, 140), 1])
    speaker.say(*range(100, 115))
    speaker.draft()
    speaker.say(7, 116)
    draft = speaker.draft(3)
    assert draft is not None
    assert list(draft.tokens) == [117, 118, 119]


def test_the_first_word_of_what_is_foreseen_has_the_rest_drafted() -> None:
    speaker = Speaker(TextDrafter(), [1, 2], params=DraftingParams(prediction=tuple(range(100, 120))))
    speaker.say(100)
    draft = speaker.draft(3)
    assert draft is not None
    assert (draft.tokens, draft.source) == ([101, 102, 103], Source.PREDICTION)


def test_what_was_answered_before_is_drafted_to_its_end_and_no_further() -> None:
    drafter = TextDrafter(Corpus())
    finished(drafter, range(100, 106), "one")
    finished(drafter, range(200, 206), "two")
    speaker = Speaker(drafter, [1, 2])
    speaker.say(102, 103)
    assert speaker.draft() == Draft([104, 105], Source.CORPUS, 2)
    speaker.say(104, 105)
    assert speaker.draft() is None


def test_an_answer_that_begins_as_the_last_one_is_drafted_from_its_first_token() -> None:
    drafter = TextDrafter(Corpus())
    finished(drafter, range(50, 60), "one")
    finished(drafter, range(100, 110), "two")
    speaker = Speaker(drafter, [1])
    speaker.say(100)
    draft = speaker.draft(3)
    assert draft is not None
    assert (draft.tokens, draft.source) == ([101, 102, 103], Source.CORPUS)
    speaker = Speaker(drafter, [1], "others")
    speaker.say(50)
    assert speaker.draft() is None


@pytest.mark.parametrize("mine", ["", "a", "b"])
def test_only_what_the_same_audience_was_answered_is_known(mine: str) -> None:
    drafter = TextDrafter(Corpus())
    finished(drafter, range(100, 110), audience="a")
    speaker = Speaker(drafter, [1], params=DraftingParams(audience=mine))
    speaker.say(100, 101)
    assert (speaker.draft() is not None) == (mine == "a")


def test_texts_of_other_adapters_are_others() -> None:
    drafter = TextDrafter(Corpus())
    finished(drafter, range(100, 110))
    speaker = Speaker(drafter, [1])
    speaker.cells.lora = ((0, 1.0),)
    speaker.say(100, 101)
    assert speaker.draft() is None


def test_a_failed_sequence_and_one_without_a_corpus_leave_nothing() -> None:
    for drafter in (TextDrafter(), TextDrafter(Corpus())):
        failed = Speaker(drafter, [1])
        failed.say(*range(100, 110))
        failed.draft()
        drafter.forget(failed.key, [] if drafter.propose([]) == [] else [1])
        speaker = Speaker(drafter, [1])
        speaker.say(100, 101)
        assert speaker.draft() is None


def test_pictures_are_never_drafted_nor_matched() -> None:
    picture = Media(b"cat", 6, 6)
    speaker = Speaker(TextDrafter(), [])
    speaker.cells = History.of((Words((1, 2, 3)), picture, Words((4, 1, 2, 3)), picture, Words((4, 9))))
    speaker.say(1, 2, 3)
    assert speaker.draft() is None, "a picture stands behind these words"
    speaker.say(4, 1)
    draft = speaker.draft()
    assert draft is not None
    assert (draft.tokens, draft.n_match) == ([2, 3], 2)


def test_a_long_prompt_is_taken_in_by_slices() -> None:
    speaker = Speaker(TextDrafter(), [i * 7919 % 50_021 for i in range(3 * BULK)])
    follower = Follower(speaker.wish(), None)
    speaker.say(1)
    slices = []
    while n_done := follower.read(BULK):
        slices.append(n_done)
    assert slices == [BULK] * 3
    # From then on a token costs itself alone.
    speaker.say(2)
    assert follower.read(BULK) == 0


def naive(draft: Draft, prompt: Seq[int], whole: Seq[int], foreseen: Seq[int], outputs: Seq[Seq[int]]) -> bool:
    """Whether the draft stands somewhere in a text of its source, and what precedes it there ends the sequence."""
    texts = {Source.HISTORY: [whole], Source.PREDICTION: [foreseen], Source.CORPUS: outputs}[draft.source]
    n_match = min(draft.n_match, 2)  # beyond an edit, a part of the match alone is there
    for text in texts:
        for place in range(1, len(text)):
            coming = list(text[place : place + len(draft.tokens)])
            if draft.source is Source.HISTORY:
                coming = (coming * len(draft.tokens))[: len(draft.tokens)]
            before = text[max(0, place - n_match) : place]
            if coming == list(draft.tokens) and (n_match == 1 or list(before[-1:]) == list(whole[-1:])):
                return True
    return False


@settings(max_examples=80)
@given(
    prompt=words.filter(len),
    foreseen=words,
    outputs=st.lists(words, max_size=3),
    turns=st.lists(st.tuples(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.floats(0, 1)), max_size=12),
    shift_at=st.integers(0, 12),
)
def test_whatever_happens_a_draft_is_a_real_place_in_a_text_that_the_sequence_may_know(
    prompt: list[int],
    foreseen: list[int],
    outputs: list[list[int]],
    turns: list[tuple[list[int], float]],
    shift_at: int,
) -> None:
    drafter = TextDrafter(Corpus())
    for i, output in enumerate(outputs):
        finished(drafter, output or [1], f"old {i}")
    speaker = Speaker(drafter, prompt, params=DraftingParams(prediction=tuple(foreseen)))
    for i, (tokens, part) in enumerate(turns):
        if i == shift_at and len(speaker.cells) > 8:
            speaker.shift(2, 6)
            fresh = Speaker(TextDrafter(), speaker.cells.keys())
            assert speaker.draft() is not None or fresh.draft() is None, "less is known than a new drafter sees"
        speaker.say(*tokens)
        draft = speaker.draft()
        assert draft == speaker.draft(), "it may be asked again"
        if draft is not None:
            assert naive(draft, prompt, speaker.cells.keys(), foreseen, outputs)
            speaker.say(*draft.tokens[: round(part * len(draft.tokens))])
    speaker.end()
    speaker.end()  # unknown by now


@settings(max_examples=60)
@given(
    prompt=st.lists(st.integers(0, 4), min_size=12, max_size=40),
    said=words,
    cut=st.tuples(st.integers(0, 11), st.integers(0, 11)),
)
def test_behind_a_context_shift_it_knows_the_sequence_as_one_that_sees_it_for_the_first_time(
    prompt: list[int], said: list[int], cut: tuple[int, int]
) -> None:
    speaker = Speaker(TextDrafter(), prompt)
    for token in said:
        speaker.say(token)
        speaker.draft()
    speaker.shift(*sorted(cut))
    fresh = Speaker(TextDrafter(), speaker.cells.keys())
    for token in (0, *said[:5]):
        speaker.say(token)
        fresh.say(token)
        assert speaker.draft() == fresh.draft()


def test_tokens_that_came_while_nobody_asked_leave_no_wrong_place() -> None:
    speaker = Speaker(TextDrafter(), [*range(100, 300), 1])
    speaker.say(*range(100, 120))
    assert speaker.draft(1) == Draft([120], Source.HISTORY, 20)
    speaker.say(*range(1000, 1100))
    assert speaker.draft() is None
    speaker.say(150, 151)
    assert speaker.draft(1) == Draft([152], Source.HISTORY, 2)


@given(outputs=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(4, 60)), max_size=60))
@settings(max_examples=40)
def test_what_is_kept_is_bounded_in_all_and_for_each_audience(outputs: list[tuple[str, int]]) -> None:
    corpus = Corpus(n_tokens=400)
    for audience, n_tokens in outputs:
        corpus.add(((), audience), range(n_tokens))
        assert len(corpus) <= 400
        assert len(corpus.shelf(((), audience))) <= 100
        corpus.shelf(((), audience)).index(1000)
        tail = Speaker(TextDrafter(corpus), [9], params=DraftingParams(audience=audience))
        tail.say(0, 1)
        draft = tail.draft(2)
        assert draft is not None, "the latest is there"
        assert (draft.tokens, draft.source) == ([2, 3], Source.CORPUS)


def test_the_audiences_that_are_kept_are_bounded_and_the_one_that_asked_last_stays() -> None:
    corpus = Corpus()
    mine = corpus.shelf(((), "mine"))
    for i in range(3 * N_AUDIENCES):
        corpus.shelf(((), str(i)))
        assert corpus.shelf(((), "mine")) is mine
    assert corpus.n_audiences == N_AUDIENCES


def test_the_oldest_outputs_go_first() -> None:
    shelf = Shelf(40)
    for i in range(6):
        shelf.add([10 * i + j for j in range(9)])
    shelf.index(100)
    kept = {token // 10 for index in (shelf.young, shelf.old) if index for token in index.tokens if token >= 0}
    assert kept == {2, 3, 4, 5}


def test_a_hundred_thousand_tokens_of_a_corpus_take_less_than_a_hundred_bytes_each() -> None:
    shelf = Shelf(1 << 18)
    for _ in range(1000):
        shelf.add(range(99))
    while shelf.index(BULK):
        pass
    assert len(shelf) == 100_000
    assert shelf.n_bytes + 8 * len(shelf) < 100 * len(shelf)


def test_requests_that_ask_for_less_get_less() -> None:
    speaker = Speaker(TextDrafter(), [*range(100, 300), 1])
    speaker.say(*range(100, 110))
    for n_most in (1, 5, 50):
        draft = speaker.drafter.propose([replace(speaker.wish(), n_most=n_most)])[0]
        assert draft is not None
        assert len(draft.tokens) == n_most
