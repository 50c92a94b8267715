"""Looks for drafts become rare while they are in vain, and nobody is forgotten."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llamabox.engine.drafting.looks import PATIENT, RAREST, RAREST_OF_FEW, Looks


def sequences(n: int) -> list[Any]:
    return [SimpleNamespace(slot=SimpleNamespace(slot_id=i)) for i in range(n)]


class Watched:
    """Looks at `n` sequences over many steps, and how often there was one."""

    def __init__(self, n: int) -> None:
        self.looks = Looks()
        self.all = sequences(n)
        self.drafting: list[Any] = []
        self.seen: list[set[int]] = []  # by step, the slots that were looked at

    def step(self, n_drafts: int = 0) -> None:
        looked = self.looks.choose(self.all, self.drafting)
        self.seen.append({one.slot.slot_id for one in looked})
        self.looks.led_to(n_drafts)

    def n_looks(self, n_steps: int) -> int:
        return sum(map(bool, self.seen[-n_steps:]))


@pytest.mark.parametrize(("n", "rarest"), [(1, 1), (2, RAREST_OF_FEW), (8, RAREST_OF_FEW), (9, RAREST), (32, RAREST)])
def test_looks_in_vain_become_rare_beside_others_and_reach_everybody(n: int, rarest: int) -> None:
    watched = Watched(n)
    for _ in range(1000):
        watched.step()
    assert watched.n_looks(80) == 80 // rarest
    n_blocks = -(-n // 8)
    assert set.union(*watched.seen[-rarest * n_blocks :]) == set(range(n))


@pytest.mark.parametrize("n", [2, 32])
def test_who_drafts_is_looked_at_in_each_step(n: int) -> None:
    watched = Watched(n)
    for _ in range(500):
        watched.step()
    watched.drafting = watched.all[1:2]
    for _ in range(20):
        watched.step(1)
        assert 1 in watched.seen[-1]
        assert watched.looks.is_look, "steps with drafts are timed"


@pytest.mark.parametrize("n", [2, 32])
def test_where_drafts_come_each_step_has_a_look_again(n: int) -> None:
    watched = Watched(n)
    for _ in range(500):
        watched.step()
    for _ in range(PATIENT * RAREST):
        watched.step(1)
    before = watched.n_looks(10)
    assert before == 10


def test_of_many_those_side_by_side_are_looked_at_together_and_now_and_then_all() -> None:
    watched = Watched(32)
    for _ in range(64):
        watched.step(1)
    assert {frozenset(one) for one in watched.seen} == {
        *(frozenset(range(start, start + 8)) for start in (0, 8, 16, 24)),
        frozenset(range(32)),
    }
