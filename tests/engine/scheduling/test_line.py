"""Who waits for a slot is looked at in the order of arrival, and a step costs the same however many wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.engine.scheduling.line import N_FIRST, N_FURTHER, Line
from llamabox.engine.sequence import Sequence
from tests.engine.driver import Driver, request
from tests.engine.work import n_instructions


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


@pytest.fixture
def comparisons_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of a list is done in C, without an instruction, but for the comparisons in it."""
    monkeypatch.setattr(Sequence, "__eq__", lambda one, other: one is other)


def work_of_steps(n_waiting: int) -> int:
    """Instructions of 20 steps while so many wait for a busy slot beside a free one."""
    driver = Driver(n_slots=2, n_ctx=4096)
    driver.submit(request("holder", (1, 1), n_predict=2000, id_slot=0))
    driver.step()
    for i in range(n_waiting):
        driver.submit(request(f"w{i}", (2, 2), n_predict=1, id_slot=0))
    driver.step()
    return n_instructions(lambda: [driver.engine.step() for _ in range(20)])


def test_a_step_costs_the_same_however_many_wait_for_a_busy_slot(comparisons_count: None) -> None:
    assert work_of_steps(8000) < 1.1 * work_of_steps(8)


def work_of_leaving(n_waiting: int) -> int:
    """Instructions until the 100 that came last of so many have left."""
    driver = Driver(n_slots=1)
    for i in range(n_waiting):
        driver.submit(request(f"w{i}", (2, 2), n_predict=1))
    work = n_instructions(lambda: [driver.abort(f"w{i}") for i in range(n_waiting - 100, n_waiting)])
    for i in range(n_waiting - 100):
        driver.abort(f"w{i}")
    assert driver.engine.is_idle
    return work


def test_those_that_leave_the_line_cost_the_same_however_many_wait(comparisons_count: None) -> None:
    assert work_of_leaving(8000) < 1.1 * work_of_leaving(200)
