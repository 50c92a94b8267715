"""The index finds, of the longest gram that is there, the latest place, and says exactly how long the match is."""

from __future__ import annotations

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.drafting.drafter import NEW
from llamabox.engine.drafting.text.grams import LENGTHS, Grams, of_array
from llamabox.engine.drafting.text.index import HABIT, MAX_MATCH, SETTLED, TextIndex

few_words = st.lists(st.integers(0, 3), min_size=1, max_size=120)
texts = few_words | st.lists(st.integers(-(2**62), 2**62), max_size=40) | few_words.map(lambda text: text * 3)


def grams_of(tokens: array[int]) -> list[tuple[int, ...]]:
    """The hashes behind each token."""
    grams, found = Grams(), []
    for token in tokens:
        grams.push(token)
        found.append(grams.hashes)
    return found


def indexed(tokens: array[int], slices: list[int]) -> TextIndex:
    """An index over all tokens but the last, as for a sequence itself: in slices, then token by token."""
    index = TextIndex(tokens)
    for n_most in slices:
        index.index(len(tokens) - 1, n_most)
    grams = Grams(tokens[: index.n_indexed])
    for token in tokens[index.n_indexed : -1]:
        grams.push(token)
        index.add(grams)
    return index


def suffix(tokens: array[int], place: int, tail: array[int]) -> int:
    """How many tokens before `place` are the last ones of `tail`, counted one by one."""
    n_match = 0
    while n_match < min(place, len(tail), MAX_MATCH) and tokens[place - n_match - 1] == tail[-n_match - 1]:
        n_match += 1
    return n_match


def naive(index: TextIndex, tail: array[int]) -> tuple[int, int]:
    """The longest of LENGTHS that is found: its latest place, unless another gram has come to its slot since."""
    tokens, hashes = index.tokens, grams_of(index.tokens)
    size = index.n_bytes // 4 // len(LENGTHS)
    shift = 65 - size.bit_length()
    for level, length in reversed(list(enumerate(LENGTHS))):
        slot = grams_of(tail)[-1][level] >> shift
        places = [end + 1 for end in range(index.n_indexed) if hashes[end][level] >> shift == slot]
        if len(tail) >= length and places and places[-1] >= length and suffix(tokens, places[-1], tail) >= length:
            return places[-1], suffix(tokens, places[-1], tail)
    return 0, 0


@given(text=texts, cuts=st.tuples(st.integers(0, 120), st.integers(0, 120)))
def test_many_tokens_are_hashed_as_one_after_the_other(text: list[int], cuts: tuple[int, int]) -> None:
    tokens = array("q", text)
    start, stop = sorted(min(cut, len(text)) for cut in cuts)
    found = zip(*(hashes.tolist() for hashes in of_array(tokens, start, stop)), strict=True)
    assert list(found) == grams_of(tokens)[start:stop]


@settings(max_examples=60)
@given(text=texts.filter(len), slices=st.lists(st.integers(0, 60), max_size=3))
def test_a_sequence_finds_in_itself_what_a_naive_search_finds(text: list[int], slices: list[int]) -> None:
    tokens = array("q", text)
    index = indexed(tokens, slices)
    assert index.n_indexed == len(tokens) - 1
    found = index.find(Grams(tokens), tokens, MAX_MATCH)
    assert found == naive(index, tokens)
    assert found[0] < len(tokens), "there is something to draft"


@settings(max_examples=60)
@given(text=few_words, tail=few_words)
def test_another_text_finds_in_it_what_a_naive_search_finds(text: list[int], tail: list[int]) -> None:
    index = TextIndex(array("q", text))
    index.index(len(text), len(text))
    here = array("q", tail)
    assert index.find(Grams(here), here, MAX_MATCH) == naive(index, here)


@given(text=few_words, limit=st.integers(0, 20))
def test_no_match_reaches_beyond_the_limit(text: list[int], limit: int) -> None:
    tokens = array("q", text * 2)
    place, n_match = indexed(tokens, []).find(Grams(tokens), tokens, limit)
    assert n_match <= limit
    assert suffix(tokens, place, tokens) >= n_match


def test_a_text_that_outgrows_its_index_is_indexed_anew() -> None:
    tokens = array("q")
    index, grams = TextIndex(tokens), Grams()
    for token in range(3000):
        tokens.append(token)
        grams.push(token)
        if index.n_indexed < token:
            index.index(token, 100)
        else:
            index.add(grams)
    index.index(len(tokens), len(tokens))
    assert index.n_bytes <= 80 * len(tokens)
    tail = array("q", range(1000, 1040))
    assert index.find(Grams(tail), tail, MAX_MATCH) == (1040, 40)


def habits_of(text: list[int], start: int, before: list[int]) -> list[int]:
    """Those of the tokens from `start` on, by a naive search; `before` are the habits of the others."""
    found = []
    for at in range(start, len(text)):
        last = [i for i in range(HABIT, start) if at >= HABIT and text[i - HABIT : i] == text[at - HABIT : at]]
        if not last:
            found.append(NEW)
        else:
            found.append(min(max(before[last[-1]], 0) + 1, SETTLED) if text[last[-1]] == text[at] else 0)
    return found


def habits(outputs: list[list[int]]) -> list[list[int]]:
    """Of the tokens of each output, put in one after the other."""
    index, found = TextIndex(array("q"), counts_habits=True), []
    for output in outputs:
        start = len(index.tokens)
        index.tokens.extend(output)
        while index.n_indexed < len(index.tokens):
            index.index(len(index.tokens), 1000)
        assert index.habits is not None
        found.append(index.habits[start:].tolist())
    return found


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=30), min_size=1, max_size=8))
def test_habits_tell_how_often_in_a_row_a_token_followed(outputs: list[list[int]]) -> None:
    """A collision may hide one."""
    text: list[int] = []
    known: list[int] = []
    for output, found in zip(outputs, habits(outputs), strict=True):
        text += output
        expected = habits_of(text, len(known), known)
        assert all(mine in (other, NEW) for mine, other in zip(found, expected, strict=True))
        known += found


def test_a_token_that_always_follows_is_settled_and_one_that_differs_is_not() -> None:
    found = habits([[-1, *range(10, 20), 100 + i, *range(30, 40)] for i in range(9)])
    assert found[0] == [NEW] * 22
    for i, some in enumerate(found[1:], 1):
        assert some[4:11] == some[15:] == [min(i, SETTLED)] * 7
        assert some[11] == 0


def test_an_index_that_is_made_anew_keeps_the_habits() -> None:
    long = [list(range(1000, 2000)), list(range(3000, 5000))]
    again = habits([*long, long[0]])[2]
    assert set(again) == {1, NEW}
    assert again.count(1) > 500, "collisions hide few"
