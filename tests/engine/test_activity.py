"""What the engine tells of its work: counts equal the sums over the sequences, whatever became of them."""

from __future__ import annotations

import pytest

from tests.engine.driver import Driver, request
from tests.fakes import FakeMemory, FakeRunner


def test_counts_are_the_sums_over_the_timings() -> None:
    driver = Driver()
    driver.submit(request("a", (1, 2, 3, 4), n_predict=5))
    driver.submit(request("b", (1, 2, 3, 5), n_predict=7, n=2))
    driver.run()
    driver.submit(request("c", (1, 2, 3, 4, 9), n_predict=0))
    driver.run()
    done = driver.engine.activity()
    timings = [one.finished.timings for one in driver.transcripts.values() if one.finished is not None]
    assert len(timings) == 4
    assert (done.n_prompt, done.n_cached) == (sum(t.prompt_n for t in timings), sum(t.cache_n for t in timings))
    assert done.n_prompt + done.n_cached == 4 + 4 + 4 + 5
    assert done.n_predicted == 5 + 7 + 7
    assert done.prompt_ms == pytest.approx(sum(t.prompt_ms for t in timings))
    assert done.predicted_ms == pytest.approx(sum(t.predicted_ms for t in timings))
    assert 7 <= done.n_decode <= done.n_busy <= 4 * done.n_decode
    assert done.n_tokens_max == 4 + 7 - 1


def test_what_is_held_now() -> None:
    driver = Driver(n_slots=2)
    for name in "abc":
        driver.submit(request(name, (1, 2, 3)))
    driver.step()
    now = driver.engine.activity()
    assert (now.n_processing, now.n_waiting) == (2, 1)
    for name in "abc":
        driver.abort(name)
    then = driver.engine.activity()
    assert (then.n_processing, then.n_waiting) == (0, 0)
    assert then.n_predicted == now.n_predicted, "what was done stays done"
    assert then.n_resident == sum(len(slot.resident) for slot in driver.engine.cache.slots) > 0


def test_a_snapshot_does_not_change() -> None:
    driver = Driver()
    before = driver.engine.activity()
    driver.submit(request("a"))
    driver.run()
    assert before.n_predicted == 0
    assert driver.engine.activity() != before


@pytest.mark.parametrize("unified", [True, False])
def test_cells_that_slots_share_count_once(unified: bool) -> None:
    memory = FakeMemory(unified=unified)
    driver = Driver(FakeRunner(memory=memory), n_slots=3)
    driver.submit(request("a", tuple(range(1, 21)), n_predict=2, n=2))
    driver.run()
    driver.submit(request("b", (*range(1, 11), 30, 31), n_predict=2))
    driver.run()
    assert driver.engine.activity().n_resident == len(memory.cells)
    if not unified:
        assert len(memory.cells) == 21 + 21 + 13
