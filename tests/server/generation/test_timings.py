"""Rates and times a token are numbers that JSON has, whatever was measured, and leave the first token out."""

from __future__ import annotations

import math

import pytest

from llamabox.engine.events import Timings
from llamabox.server.generation.timings import RATE_HEADER, rate_header, timings_object


@pytest.mark.parametrize("n", [0, 1, 2, 100])
@pytest.mark.parametrize("ms", [0.0, 1e-9, 10.0])
def test_every_number_is_finite_and_none_is_negative(n: int, ms: float) -> None:
    shown = timings_object(Timings(prompt_n=n, prompt_ms=ms, predicted_n=n, predicted_ms=ms))
    assert all(math.isfinite(value) and value >= 0 for value in shown.values()), shown


def test_n_tokens_took_one_step_less() -> None:
    timings = Timings(cache_n=3, prompt_n=10, prompt_ms=20.0, predicted_n=5, predicted_ms=40.0)
    shown = timings_object(timings)
    assert (shown["prompt_per_second"], shown["prompt_per_token_ms"]) == (500.0, 2.0)
    assert (shown["predicted_per_second"], shown["predicted_per_token_ms"]) == (100.0, 10.0)
    assert rate_header(timings) == {RATE_HEADER: "100.000000"}


def test_drafts_are_told_in_the_words_of_both_ancestors_where_there_were_some() -> None:
    shown = timings_object(Timings(predicted_n=5, n_drafted=4, n_accepted=3))
    assert {name: value for name, value in shown.items() if "draft" in name} == {
        "draft_n": 4,
        "draft_n_accepted": 3,
        "drafted_n": 4,
        "drafted_accepted_n": 3,
        "drafted_accepted_p": 0.75,
    }
    assert not any("draft" in name for name in timings_object(Timings(predicted_n=5)))
