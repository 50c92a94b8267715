"""The speed limit of a sequence: never faster, on the whole not slower, and nobody else's business."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.rate import BURST, RateLimit
from tests.engine.driver import Driver, request


@settings(deadline=None)
@given(rate=st.integers(1, 200), pauses=st.lists(st.floats(0.0, 0.5), min_size=1, max_size=20), first=st.floats(0, 9))
def test_no_stretch_of_time_has_more_tokens_than_the_rate_and_a_small_burst(
    rate: int, pauses: list[float], first: float
) -> None:
    limit = RateLimit(rate)
    times = [first]
    now = first
    for pause in pauses:
        while limit.due(len(times), now) <= now:
            times.append(now)
        now += pause
    for i, start in enumerate(times):
        for j in range(i, len(times)):
            assert j - i <= (times[j] - start + BURST) * rate + 1 + 1e-6


@settings(deadline=None)
@given(rate=st.integers(1, 50), lateness=st.lists(st.floats(0.0, BURST - 0.01), min_size=20, max_size=60))
def test_steps_that_are_a_little_late_do_not_slow_it_down(rate: int, lateness: list[float]) -> None:
    limit = RateLimit(rate)
    now = start = 100.0
    for n_generated, late in enumerate(lateness, 1):
        now = max(now, limit.due(n_generated, now) + late)
    assert now - start <= len(lateness) / rate + BURST + 1e-6


@settings(deadline=None)
@given(rate=st.integers(1, 50), batches=st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_tokens_that_come_together_are_all_charged(rate: int, batches: list[int]) -> None:
    limit = RateLimit(rate)
    now, n_generated = 5.0, 0
    for n_new in batches:
        n_generated += n_new
        now = max(now, limit.due(n_generated, now))
        assert limit.due(n_generated, now) <= now, "asking again costs nothing"
    assert now - 5.0 == pytest.approx(n_generated / rate)


def test_a_limited_sequence_sits_steps_out_while_another_goes_on() -> None:
    driver = Driver()
    driver.submit(request("slow", (1, 2, 3), n_predict=10, tokens_per_second=5))
    driver.submit(request("fast", (7, 8, 9), n_predict=40))
    while not driver.transcripts["fast", 0].is_over:
        driver.step()
        assert driver.engine.rest() == 0.0
    assert len(driver.runner.batches) == 40, "a step without a token of it"
    began = driver.clock.now
    n_slow = sum(len(run) for batch in driver.runner.batches for run in batch.runs if run.seq_id == 0) - 2
    assert n_slow <= 2
    driver.run()
    assert driver.clock.now - began == pytest.approx((10 - n_slow) / 5, abs=0.21)


def test_when_nobody_is_due_there_is_a_rest_and_an_abort_ends_it() -> None:
    driver = Driver()
    driver.submit(request("slow", tuple(range(1, 60)), n_predict=-1, n_discard=2, tokens_per_second=2))
    while not driver.transcripts["slow", 0].tokens:
        driver.step()
        assert driver.engine.rest() == 0.0, "the prompt is not limited"
    assert driver.engine.step().events == []
    assert 0.4 < driver.engine.rest() <= 0.5
    driver.submit(request("new", (5,), n_predict=3))
    n_batches = len(driver.runner.batches)
    driver.engine.step()
    assert len(driver.runner.batches) == n_batches + 1, "a newcomer does not wait for the rest to end"
    for name in ("slow", "new"):
        driver.abort(name)
    assert driver.engine.is_idle


def test_a_text_that_rests_keeps_the_prompts_of_others_in_small_chunks() -> None:
    driver = Driver(n_ctx=256)
    driver.submit(request("slow", (1, 2), n_predict=9, tokens_per_second=1))
    driver.step()
    driver.submit(request("long", tuple(range(1, 200)), n_predict=1))
    driver.step()
    assert len(driver.runner.batches[-1]) < driver.runner.facts.n_ubatch
    driver.run()
