"""Who waits for a slot is looked at in the order of arrival, and a step costs the same however many wait."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from llamabox.engine.scheduling.line import N_FIRST, N_FURTHER, Line
from llamabox.engine.sequence import Sequence
from tests.engine.driver import Driver, request


def waiting(id_slot: int = -1) -> Sequence:
    return Sequence(request(id_slot=id_slot), 0, seed=1, arrived=0.0)


@given(
    st.lists(st.integers(-1, 3), max_size=N_FIRST + N_FURTHER),
    st.sets(st.integers(0, 3)),
    st.sets(st.integers(0, 31)),
)
def test_a_short_line_is_looked_at_whole(wanted: list[int], free: set[int], gone: set[int]) -> None:
    line = Line()
    sequences = [waiting(id_slot) for id_slot in wanted]
    for sequence in sequences:
        line.add(sequence)
    for i in gone & set(range(len(sequences))):
        line.remove(sequences[i])
    left = [one for i, one in enumerate(sequences) if i not in gone]
    assert len(line) == len(left)
    for _ in range(2):
        assert line.candidates(free) == [one for one in left if one.id_slot in (-1, *free)]


def test_in_a_long_line_each_has_its_turn_and_the_first_in_every_step() -> None:
    line = Line()
    sequences = [waiting() for _ in range(1000)]
    for sequence in sequences:
        line.add(sequence)
    seen: set[Sequence] = set()
    for _ in range(-(-1000 // N_FURTHER)):
        found = line.candidates([0])
        assert found[:N_FIRST] == sequences[:N_FIRST]
        assert found == sorted(found, key=sequences.index)
        assert len(found) <= N_FIRST + N_FURTHER
        seen.update(found)
    assert len(seen) == 1000


def seconds_for_steps(n_waiting: int) -> float:
    """The least of three times that 20 steps took while so many waited for a busy slot beside a free one."""
    driver = Driver(n_slots=2, n_ctx=4096)
    driver.submit(request("holder", (1, 1), n_predict=2000, id_slot=0))
    driver.step()
    for i in range(n_waiting):
        driver.submit(request(f"w{i}", (2, 2), n_predict=1, id_slot=0))
    driver.step()
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(20):
            driver.engine.step()
        taken.append(time.perf_counter() - start)
    return min(taken)


def test_a_step_costs_the_same_however_many_wait_for_a_busy_slot() -> None:
    assert seconds_for_steps(8000) < 4 * seconds_for_steps(8) + 0.002


def test_those_that_leave_the_line_cost_the_same_however_many_wait() -> None:
    driver = Driver(n_slots=1)
    for i in range(8000):
        driver.submit(request(f"w{i}", (2, 2), n_predict=1))
    start = time.perf_counter()
    for i in range(4000):
        driver.abort(f"w{i}")
    first = time.perf_counter() - start
    for i in range(4000, 8000):
        driver.abort(f"w{i}")
    assert driver.engine.is_idle
    assert time.perf_counter() - start - first < 4 * first + 0.01
