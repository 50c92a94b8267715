"""Silence is taken for death after a limit that knows how slow this machine is, and who was held up himself."""

from __future__ import annotations

import ctypes
import subprocess

import pytest

from llamabox.wire.signs.pulse import pause
from llamabox.wire.signs.vigil import SLOW_FACTOR, START_FACTOR, Vigil, is_traced

LIMIT = 8.0


class Watch:
    """A vigil that is asked by a clock of the test's own."""

    def __init__(self, *, heard: bool = True) -> None:
        self.now = 0.0
        self.vigil = Vigil(LIMIT, lambda: self.now)
        if heard:
            self.vigil.heard()

    def passes(self, seconds: float) -> bool:
        """Whether the silence was found too long at one of the looks of so many seconds."""
        over = [self._look() for _ in range(round(seconds / pause(LIMIT)))]
        return any(over)

    def _look(self) -> bool:
        self.now += pause(LIMIT)
        return self.vigil.is_over()


def test_silence_is_over_within_twice_the_limit() -> None:
    watch = Watch()
    assert not watch.passes(LIMIT)
    assert watch.passes(LIMIT)


def test_each_word_begins_it_anew() -> None:
    watch = Watch()
    for _ in range(10):
        assert not watch.passes(LIMIT / 2)
        watch.vigil.heard()
    assert watch.vigil.limit == max(LIMIT, SLOW_FACTOR * LIMIT / 2)


def test_a_machine_that_is_slow_has_a_longer_limit() -> None:
    watch = Watch()
    watch.passes(LIMIT - 1)
    watch.vigil.heard()
    assert watch.vigil.limit == SLOW_FACTOR * (LIMIT - 1)
    assert not watch.passes(2 * LIMIT)
    assert watch.passes(LIMIT)


def test_the_first_word_may_take_longer_and_is_no_measure() -> None:
    watch = Watch(heard=False)
    assert not watch.passes(START_FACTOR * LIMIT)
    watch.vigil.heard()
    assert watch.vigil.limit == LIMIT
    assert Watch(heard=False).passes((START_FACTOR + 1) * LIMIT)


@pytest.mark.parametrize("seconds", [60.0, 3600.0])
def test_a_server_that_slept_finds_nobody_dead(seconds: float) -> None:
    watch = Watch()
    watch.passes(LIMIT / 2)
    watch.now += seconds
    assert not watch.passes(1.0)


def test_a_process_under_a_debugger_is_known() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    seize, word = 0x4206, ctypes.c_ulong
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            assert not is_traced(process.pid)
            assert libc.ptrace(word(seize), word(process.pid), word(0), word(0)) == 0
            assert is_traced(process.pid)
        finally:
            process.kill()
    assert not is_traced(process.pid)
    assert not is_traced(None)
