from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.bench.client import RequestOutcome
from llamabox.bench.figures import Figures, figures, heading, quantile, row


def outcome(*stamps: float, n_tokens: int = 0, error: str = "", n_prompt: int = 0, n_cached: int = 0) -> RequestOutcome:
    return RequestOutcome(
        sent=1.0,
        done=stamps[-1] if stamps else 1.0,
        stamps=list(stamps),
        n_tokens=n_tokens or len(stamps),
        n_prompt=n_prompt,
        n_cached=n_cached,
        error=error,
    )


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.001, 1))
def test_a_quantile_is_the_smallest_value_that_enough_do_not_exceed(values: list[float], part: float) -> None:
    found = quantile(values, part)
    enough = part * len(values)
    assert found in values
    assert sum(value <= found for value in values) >= enough
    below = [value for value in values if value < found]
    assert sum(value <= max(below) for value in values) < enough if below else True


def test_nothing_measured_is_nan() -> None:
    assert math.isnan(quantile([], 0.5))
    run = figures(2, [outcome(error="refused"), outcome(error="refused")], 1.0)
    assert (run.requests, run.failed, run.tok_s, run.req_s) == (2, 2, 0.0, 0.0)
    assert math.isnan(run.ttft_p50_ms)
    assert math.isnan(run.gap_max_ms)
    assert math.isnan(run.cached)


def test_failed_requests_count_as_failed_alone() -> None:
    good = outcome(1.5, 1.75, 2.25, n_tokens=3, n_prompt=10, n_cached=4)
    run = figures(2, [good, outcome(1.1, n_tokens=50, error="cut off", n_prompt=90)], 2.0)
    assert (run.clients, run.requests, run.failed) == (2, 2, 1)
    assert (run.tok_s, run.req_s) == (1.5, 0.5)
    assert run.ttft_p50_ms == pytest.approx(500)
    assert (run.gap_p50_ms, run.gap_max_ms) == (pytest.approx(250), pytest.approx(500))
    assert run.total_p50_ms == pytest.approx(1250)
    assert run.cached == pytest.approx(0.4)


def test_rows_stand_under_their_headings() -> None:
    run = figures(8, [outcome(1.5, 1.75)], 1.0)
    assert isinstance(run, Figures)
    assert len(row(run)) == len(heading())
    assert row(run).split()[:3] == ["8", "1", "0"]
    assert row(run).split()[-1] == "-"
