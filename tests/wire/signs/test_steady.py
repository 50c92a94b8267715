"""Silence is measured in time that its owner could run."""

from __future__ import annotations

from llamabox.wire.signs.steady import SteadyClock


def test_time_passes_as_it_does_while_the_owner_looks_in_time() -> None:
    now = [100.0]
    clock = SteadyClock(1.0, lambda: now[0])
    for passed in (0.5, 1.0, 1.9):
        before = clock.now
        now[0] += passed
        assert clock.look() == clock.now
        assert round(clock.now - before, 6) == passed


def test_a_sleep_of_hours_counts_as_two_looks() -> None:
    now = [100.0]
    clock = SteadyClock(1.0, lambda: now[0])
    now[0] += 10_000
    assert clock.look() == 2.0
    now[0] += 0.5
    assert clock.look() == 2.5
