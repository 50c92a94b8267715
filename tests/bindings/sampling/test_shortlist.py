"""The rule of the shortlist, against chains worked out over all logits with numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.bindings.sampling.shortlist import ALL, LONGEST, shortlist, takes_highest

N_VOCAB = 12
BIASES = st.lists(st.tuples(st.integers(0, N_VOCAB - 1), st.floats(-9, 0)), max_size=4, unique_by=lambda pair: pair[0])


def lowered(logits: np.ndarray[Any, Any], biases: list[tuple[int, float]]) -> np.ndarray[Any, Any]:
    changed = logits.copy()
    for token, bias in biases:
        changed[token] += bias
    return changed


@given(st.permutations(range(N_VOCAB)), BIASES, st.integers(1, 6))
def test_the_highest_after_lowering_are_on_the_shortlist(
    order: list[int], biases: list[tuple[int, float]], k: int
) -> None:
    logits = np.array(order, float)
    n_best = shortlist([("logit_bias", (biases,)), ("top_k", (k,)), ("dist", (1,))])
    assert n_best == k + len(biases)
    highest = set(np.argsort(-lowered(logits, biases), kind="stable")[:k].tolist())
    assert highest <= set(np.argsort(-logits, kind="stable")[:n_best].tolist())


@pytest.mark.parametrize(
    ("steps", "n_best"),
    [
        ([("greedy", ())], 1),
        ([("top_k", (40,)), ("top_p", (0.5, 0)), ("min_p", (0.1, 0)), ("temp", (0.7,)), ("greedy", ())], 1),
        ([("top_k", (1,)), ("dist", (3,))], 1),
        ([("top_k", (40,)), ("typical", (0.5, 0)), ("dist", (3,))], 40),
        ([("penalties", (64, 1.1, 0.5, 0.5)), ("dry", (0.8, 1.75, 2, 100, ())), ("top_k", (40,)), ("dist", (3,))], 204),
        ([("logit_bias", (((1, -1.0),),)), ("greedy", ())], 2),
        ([("logit_bias", (((1, 1.0),),)), ("top_k", (40,))], ALL),
        ([("penalties", (64, 0.9, 0.0, 0.0)), ("top_k", (40,))], ALL),
        ([("penalties", (64, 1.0, -0.1, 0.0)), ("top_k", (40,))], ALL),
        ([("penalties", (LONGEST, 1.1, 0.0, 0.0)), ("top_k", (40,))], ALL),
        ([("top_p", (0.9, 0)), ("top_k", (40,))], ALL),
        ([("typical", (0.9, 0)), ("greedy", ())], ALL),
        ([("top_k", (0,)), ("dist", (1,))], ALL),
        ([("temp", (0.8,)), ("mirostat_v2", (4, 5.0, 0.1))], ALL),
        ([("dist", (1,))], ALL),
        ([], ALL),
    ],
)  # fmt: skip
def test_what_may_be_left_out(steps: list[tuple[str, tuple[Any, ...]]], n_best: int) -> None:
    assert shortlist(steps) == n_best


@pytest.mark.parametrize(
    ("steps", "is_highest"),
    [
        ([("greedy", ())], True),
        ([("top_k", (40,)), ("temp", (0.7,)), ("greedy", ())], True),
        ([("top_k", (1,)), ("dist", (3,))], True),
        ([("logit_bias", (((1, -1.0), (2, 5.0)),)), ("greedy", ())], True),
        ([("logit_bias", (((1, -1.0),),)), ("top_k", (40,)), ("dist", (3,))], False),
        ([("penalties", (64, 1.1, 0.5, 0.5)), ("greedy", ())], False),
        ([("typical", (0.9, 0)), ("greedy", ())], False),
        ([("dist", (1,))], False),
    ],
)
def test_what_takes_the_highest_whatever_else_there_is(
    steps: list[tuple[str, tuple[Any, ...]]], is_highest: bool
) -> None:
    assert takes_highest(steps) == is_highest
