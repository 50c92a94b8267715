"""Who copies a text with changes is found again behind each of them."""

from __future__ import annotations

from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.engine.drafting.text.trail import N_LOST, N_TRIES, VOUCH, WORTH, Trail

TEXT = array("q", range(100, 200))


def followed(said: list[int], n_copied: int = 20) -> Trail:
    """The trail of a sequence that copied the first `n_copied` tokens and then said `said`."""
    trail = Trail(TEXT, n_copied, n_copied)
    for token in said:
        trail.follow(array("q", [token]), len(TEXT))
    return trail


def coming(trail: Trail) -> int:
    return TEXT[trail.place]


def test_right_behind_a_token_the_next_one_is_tried_as_if_it_had_been_replaced() -> None:
    trail = followed([1])
    assert (coming(trail), trail.n_match, trail.is_lost) == (121, 1, True)


@pytest.mark.parametrize(
    ("said", "meets"),
    [
        pytest.param([1, 121], 122, id="a token is replaced"),
        pytest.param([1, 2, 3, 123], 124, id="three by three"),
        pytest.param([1, 2, 3, 121], 122, id="one by three"),
        pytest.param([1, 124], 125, id="four by one"),
        pytest.param([1, 2, 120], 121, id="two are put in"),
        pytest.param([125], 126, id="five are left out"),
    ],
)
def test_the_first_token_behind_an_edit_finds_the_place_again(said: list[int], meets: int) -> None:
    trail = followed(said)
    assert (coming(trail), trail.n_match, trail.is_exact) == (meets, 1 + VOUCH, False)


def test_a_word_that_is_elsewhere_in_the_text_does_not_lead_astray() -> None:
    trail = followed([130, 1, 121, 122, 123])
    assert (coming(trail), trail.is_lost) == (124, False)


def test_where_words_agreed_by_chance_a_lone_one_is_believed_no_more() -> None:
    strange = [130, 1] * N_TRIES
    assert followed([*strange[:-1]]).n_match == 1 + VOUCH
    assert followed([*strange, 125]).n_match == 0
    trail = followed([*strange, 125, 126])
    assert (coming(trail), trail.n_match, trail.is_lost) == (127, 2, True)
    trail = followed([*strange, 125, 126, 127])
    assert (coming(trail), trail.n_match, trail.is_lost) == (128, 3 + 3 * VOUCH, False)


def test_a_short_match_is_not_looked_for_again() -> None:
    trail = Trail(TEXT, 20, WORTH - 1)
    trail.follow(array("q", [1]), len(TEXT))
    assert trail.is_cold


def test_who_does_not_come_back_is_left_alone() -> None:
    trail = followed([1] * N_LOST)
    assert (trail.is_cold, trail.n_match) == (False, 0)
    assert followed([1] * (N_LOST + 1)).is_cold


def test_what_is_foreseen_is_followed_from_its_first_token() -> None:
    trail = Trail.from_start(TEXT)
    trail.follow(array("q", [100]), len(TEXT))
    assert (coming(trail), trail.n_match) == (101, 1 + VOUCH)


@given(said=st.lists(st.sampled_from([1, 2, *range(115, 130)]), max_size=30), cuts=st.sets(st.integers(1, 29)))
def test_tokens_that_come_together_are_followed_as_one_by_one(said: list[int], cuts: set[int]) -> None:
    one = followed(said)
    many = Trail(TEXT, 20, 20)
    edges = [0, *sorted(cut for cut in cuts if cut < len(said)), len(said)]
    for start, stop in pairwise(edges):
        if not many.is_cold:
            many.follow(array("q", said[start:stop]), len(TEXT))
    assert one.is_cold == many.is_cold
    assert one.is_cold or (one.place, one.n_match) == (many.place, many.n_match)


@given(said=st.lists(st.integers(118, 126), max_size=40))
def test_a_place_is_always_in_the_text_and_an_exact_match_is_there(said: list[int]) -> None:
    trail = followed(said)
    whole = [*TEXT[:20], *said]
    assert 0 <= trail.place <= len(TEXT)
    if trail.is_exact and not trail.is_lost:
        n_match = trail.n_match
        assert TEXT[trail.place - n_match : trail.place].tolist() == whole[-n_match:]
