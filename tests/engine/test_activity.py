"""What the engine tells of its work: counts equal the sums over the sequences, whatever became of them."""

from __future__ import annotations

import pytest

from llamabox.engine.drafting.drafter import Source
from llamabox.engine.events import Activity, DraftCounts
from tests.engine.driver import Driver, alone, request
from tests.fakes import FakeDrafter, FakeMemory, FakeRunner


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


@pytest.mark.parametrize("source", [Source.HISTORY, Source.PREDICTION])
def test_counts_of_drafts_are_the_sums_over_the_timings(source: Source) -> None:
    asked = [request(f"r{i}", (i, 2, 3), n_predict=40, tokens_per_second=1000 * i) for i in range(3)]
    texts = {(one.request_id, 0): alone(one)[0].tokens for one in asked}
    drafter = FakeDrafter(texts, n_right=-1, source=source, period=5)
    driver = Driver(None, [drafter])
    for one in asked:
        driver.submit(one)
    driver.run()
    timings = [one.finished.timings for one in driver.transcripts.values() if one.finished is not None]
    [counts] = driver.engine.activity().drafts
    assert counts.source is source
    assert counts.n_drafted == drafter.n_drafted == sum(one.n_drafted for one in timings) > 0
    assert counts.n_accepted == drafter.n_accepted == sum(one.n_accepted for one in timings) > 0
    assert sum(counts.accepted_at) == counts.n_accepted
    assert sorted(counts.accepted_at, reverse=True) == list(counts.accepted_at) <= [counts.n_drafts] * 16
    is_foreseen = source is Source.PREDICTION
    for one in timings:
        foreseen = (one.n_foreseen, one.n_foreseen_accepted)
        assert foreseen == ((one.n_drafted, one.n_accepted) if is_foreseen else (0, 0))


def test_counts_of_drafts_add_up_over_the_lives_of_a_worker() -> None:
    past = Activity(drafts=(DraftCounts(Source.HISTORY, 1, 4, 2, (1, 1)), DraftCounts(Source.MODEL, 1, 1, 0, (0,))))
    now = Activity(drafts=(DraftCounts(Source.CORPUS, 2, 2, 1, (1,)), DraftCounts(Source.HISTORY, 2, 5, 3, (2, 1, 0))))
    assert set(now.after(past).drafts) == {
        DraftCounts(Source.HISTORY, 3, 9, 5, (3, 2, 0)),
        DraftCounts(Source.MODEL, 1, 1, 0, (0,)),
        DraftCounts(Source.CORPUS, 2, 2, 1, (1,)),
    }
    assert now.after(Activity()) == Activity().after(now) == now
