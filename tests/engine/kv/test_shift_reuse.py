"""After a context shift a slot holds cells that attended to dropped ones: no later prompt may start from those."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.driver import Driver, alone, request

N_CTX = 24


def shifted_driver(prompt: tuple[int, ...], n_keep: int, n_discard: int, n_predict: int) -> Driver:
    """A one-slot engine whose slot has been through at least one context shift and is free again."""
    driver = Driver(n_slots=1, n_ctx=N_CTX)
    driver.submit(request("first", prompt, n_predict=n_predict, n_keep=n_keep, n_discard=n_discard))
    driver.run()
    finished = driver.transcripts["first", 0].finished
    assert finished is not None
    assert finished.truncated
    return driver


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.lists(st.integers(1, 9), min_size=6, max_size=N_CTX - 1).map(tuple),
    n_keep=st.integers(0, 6),
    n_discard=st.sampled_from([0, 0, 3]),
    n_more=st.integers(0, 30),
    tail=st.lists(st.integers(1, 9), max_size=2).map(tuple),
)
def test_a_prompt_equal_to_shifted_cells_is_answered_as_alone(
    prompt: tuple[int, ...], n_keep: int, n_discard: int, n_more: int, tail: tuple[int, ...]
) -> None:
    n_predict = N_CTX - len(prompt) + 1 + n_more
    driver = shifted_driver(prompt, n_keep, n_discard, n_predict)
    resident = tuple(driver.engine.cache.slots[0].resident.keys())
    again = request("again", (resident + tail)[: N_CTX - 1], n_predict=4)
    driver.submit(again)
    driver.run()
    got = driver.transcripts["again", 0]
    assert got.tokens == alone(again, n_slots=1, n_ctx=N_CTX)[0].tokens
    assert got.started is not None
    assert got.started.n_cached == n_keep


def test_what_follows_the_gap_stays_unusable_when_more_is_generated_behind_it() -> None:
    # Three requests: the second starts in front of the gap, so that what it computes is exact again and may be reused.
    driver = shifted_driver(tuple(range(1, 21)), 5, 0, 40)
    resident = tuple(driver.engine.cache.slots[0].resident.keys())
    for name, n_cached in (("second", 5), ("third", len(resident) - 1)):
        again = request(name, resident, n_predict=1)
        driver.submit(again)
        driver.run()
        got = driver.transcripts[name, 0]
        assert got.started is not None
        assert got.started.n_cached == n_cached
        assert got.tokens == alone(again, n_slots=1, n_ctx=N_CTX)[0].tokens


def test_a_copy_of_a_shifted_slot_is_no_better_than_the_slot() -> None:
    driver = Driver(n_slots=3, n_ctx=N_CTX)
    driver.submit(request("busy", tuple(range(1, 21)), n_predict=200, n_keep=5))
    while len(driver.transcripts["busy", 0].tokens) < 30:
        driver.step()
    slot = driver.engine.running[0].slot
    assert slot is not None
    resident = tuple(slot.resident.keys())
    for name in ("copied", "copied from the copy"):
        again = request(name, resident, n_predict=3)
        driver.submit(again)
        while not driver.transcripts[name, 0].is_over:
            driver.step()
        got = driver.transcripts[name, 0]
        assert got.tokens == alone(again, n_slots=1, n_ctx=N_CTX)[0].tokens
    driver.run()
    expected = alone(request("busy", tuple(range(1, 21)), n_predict=200, n_keep=5), n_slots=1, n_ctx=N_CTX)
    assert driver.transcripts["busy", 0].tokens == expected[0].tokens
