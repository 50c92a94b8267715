"""Scores out of what a reranker gives: any numbers in, a sound order out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.server.api.rerank.ranking import best, score

LOGIT = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(LOGIT, min_size=1, max_size=4))
def test_a_normalised_score_is_a_number_from_0_to_1(outputs: list[float]) -> None:
    assert 0 <= score(outputs, normalize=True) <= 1
    assert score(outputs, normalize=False) == outputs[0]


@given(LOGIT, LOGIT)
def test_normalising_keeps_the_order(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert score([low], normalize=True) <= score([high], normalize=True)


def test_one_output_is_a_logit_and_several_are_classes() -> None:
    assert score([0.0], normalize=True) == 0.5
    assert score([math.log(3)], normalize=True) == pytest.approx(0.75)
    assert score([math.log(3), 0.0, 0.0], normalize=True) == pytest.approx(0.6)
    assert score([-500.0, 500.0], normalize=True) == 0
    assert score([0.9, 0.1], normalize=True) == 0.9  # probabilities already


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1), st.integers(1, 20))
def test_the_best_come_first_and_equals_in_their_order(scores: list[float], top_n: int) -> None:
    order = best(scores, top_n)
    assert order == sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:top_n]
