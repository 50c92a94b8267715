"""Signs of life are given while work gets on, and only then."""

from __future__ import annotations

import socket
from typing import Any, cast

import pytest

from llamabox.wire.common import Beat
from llamabox.wire.signs.pulse import BEATS, DEVICE_FACTOR, SLOW_FACTOR, Pulse, pause
from llamabox.wire.worker_end import WorkerEnd

LIMIT = 8.0


class Life:
    """A pulse that is asked by a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.n_nodes = 0
        self.pulse = Pulse(cast(Any, None), LIMIT, lambda: self.now)
        self.watch(has_device=False)

    def watch(self, *, has_device: bool) -> None:
        self.pulse.watch(lambda: self.n_nodes, has_device=has_device)

    def beats(self, seconds: float, *, n_nodes: int = 0) -> list[bool]:
        """Whether there was a sign at each look of so many seconds, between two of which nodes are computed."""
        found = []
        for _ in range(int(seconds / pause(LIMIT))):
            self.now += pause(LIMIT)
            self.n_nodes += n_nodes
            found.append(self.pulse.stuck() is None)
        return found


@pytest.mark.parametrize("limit", [0.4, 8.0, 60.0, 3600.0])
def test_there_are_several_signs_within_the_limit(limit: float) -> None:
    assert limit / pause(limit) >= BEATS


def test_nothing_to_do_is_no_hang() -> None:
    life = Life()
    assert all(life.beats(100 * LIMIT))
    with life.pulse.work("a step", computes=True):
        assert life.beats(1.0) == [True]
    assert all(life.beats(100 * LIMIT))


def test_work_that_gets_on_may_take_for_ever() -> None:
    life = Life()
    with life.pulse.work("a step", computes=True):
        assert all(life.beats(100 * LIMIT, n_nodes=1))


def test_work_that_stands_still_ends_the_signs_in_time_and_going_on_brings_them_back() -> None:
    life = Life()
    with life.pulse.work("a step", computes=True):
        assert all(life.beats(10 * LIMIT, n_nodes=1))
        beats = life.beats(LIMIT)
        assert beats[0]
        assert not beats[-1]
        assert all(life.beats(LIMIT, n_nodes=1))


def test_a_machine_whose_nodes_take_ever_longer_has_ever_longer() -> None:
    """As the attention's do while a long prompt is computed on one slow thread."""
    life = Life()
    with life.pulse.work("a step", computes=True):
        for seconds in range(1, 100):
            assert all(life.beats(seconds))
            life.n_nodes += 1
        assert not all(life.beats(SLOW_FACTOR * 100))


def test_a_device_whose_steps_are_long_has_longer() -> None:
    life = Life()
    life.watch(has_device=True)
    for _ in range(2):
        with life.pulse.work("a step", computes=True):
            life.beats(DEVICE_FACTOR * LIMIT - 1)
    with life.pulse.work("a step", computes=True):
        assert all(life.beats(2 * DEVICE_FACTOR * LIMIT))


def test_a_decode_that_gets_on_is_no_excuse_for_a_thread_that_does_not() -> None:
    life = Life()
    with life.pulse.work("a step", computes=True), life.pulse.work("reading a message"):
        assert not life.beats(LIMIT, n_nodes=1)[-1]


def test_a_device_that_shows_nothing_has_more_time_but_not_for_ever() -> None:
    life = Life()
    life.watch(has_device=True)
    with life.pulse.work("a step", computes=True):
        assert all(life.beats(DEVICE_FACTOR * LIMIT))
        assert not life.beats(LIMIT)[-1]


def test_a_long_text_has_the_time_that_its_length_takes() -> None:
    life = Life()
    with life.pulse.work("a long text", seconds=10 * LIMIT):
        assert all(life.beats(10 * LIMIT))
        assert not life.beats(LIMIT)[-1]


def test_a_machine_that_slept_is_no_hang() -> None:
    life = Life()
    with life.pulse.work("a step"):
        life.now += 3600.0
        assert life.beats(1.0) == [True]


def test_a_sign_is_sent_where_nothing_else_is() -> None:
    ours, theirs = socket.socketpair()
    with WorkerEnd(ours) as here, WorkerEnd(theirs) as there:
        Pulse(there, 0.08).start()
        assert here.receive() == Beat()
        assert here.receive() == Beat()
