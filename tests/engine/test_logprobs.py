"""Log-probabilities of a row: a log-softmax, with nothing in it that JSON cannot say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.engine.logprobs import LOWEST, Distribution, top_logprobs

logits = st.lists(st.floats(-100, 100, width=32) | st.just(-math.inf), min_size=1, max_size=30)


@given(row=logits, n=st.integers(1, 40), data=st.data())
def test_they_are_the_log_softmax_of_the_whole_row(row: list[float], n: int, data: st.DataObject) -> None:
    token = data.draw(st.integers(0, len(row) - 1))
    chosen, top = top_logprobs(np.array(row, np.float32), token, n)
    total = math.fsum(math.exp(value) for value in row)
    expected = [math.log(math.exp(value) / total) if total and value > -math.inf else LOWEST for value in row]
    assert chosen == pytest.approx(expected[token], abs=1e-3)
    assert len(top) == min(n, len(row))
    assert [token for token, _ in top] == sorted(range(len(row)), key=lambda each: (-row[each], each))[:n]
    assert [value for _, value in top] == pytest.approx([expected[token] for token, _ in top], abs=1e-3)
    assert all(LOWEST <= value <= 1e-6 for _, value in top)


def test_huge_logits_do_not_overflow() -> None:
    chosen, top = top_logprobs(np.array([3e38, -3e38, 0], np.float32), 1, 3)
    assert [token for token, _ in top] == [0, 2, 1]
    assert top[0][1] == 0.0
    assert chosen >= LOWEST


@given(weights=st.lists(st.integers(1, 5), min_size=1, max_size=30), n=st.integers(1, 40), data=st.data())
def test_the_likeliest_of_a_distribution(weights: list[int], n: int, data: st.DataObject) -> None:
    ids = data.draw(st.permutations(range(len(weights))))
    found = Distribution(np.array(ids, np.int32), np.array(weights) / sum(weights))
    by_token = {token: weight / sum(weights) for token, weight in zip(ids, weights, strict=True)}
    likeliest = sorted(by_token, key=lambda token: (-by_token[token], token))[:n]
    assert found.top(n) == [(token, by_token[token]) for token in likeliest]
    assert [found.of(token) for token in ids] == [by_token[token] for token in ids]
    assert found.of(len(weights)) == 0.0


def test_an_empty_distribution() -> None:
    nothing = Distribution(np.empty(0, np.int32), np.empty(0))
    assert (nothing.top(5), nothing.of(1)) == ([], 0.0)
