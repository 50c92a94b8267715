"""What waits is bounded, and who is refused is told when fewer are likely to."""

from __future__ import annotations

import pytest

from llamabox.clients.crowd import MAX_RETRY_AFTER, Crowd
from llamabox.errors import QueueFull


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def refusal(crowd: Crowd, n_waiting: int) -> QueueFull:
    with pytest.raises(QueueFull) as caught:
        crowd.check(n_waiting)
    return caught.value


def test_no_more_than_may_wait() -> None:
    crowd = Crowd(3)
    crowd.check(-4)
    crowd.check(2)
    error = refusal(crowd, 3)
    assert "3 texts wait for a slot already, at most 3 may (--max-waiting)" in error.message
    assert error.retry_after == 1


def test_when_to_come_back_follows_from_how_fast_others_leave() -> None:
    clock = Clock()
    crowd = Crowd(10, clock)
    for _ in range(40):
        clock.now += 2.5
        crowd.left()
    assert refusal(crowd, 10).retry_after == 3
    assert refusal(crowd, 13).retry_after == 10
    clock.now += 1e6
    assert refusal(crowd, 10).retry_after == MAX_RETRY_AFTER
