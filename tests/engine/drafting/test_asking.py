"""A drafter that computes is asked where that pays; one that has its guesses at hand is always asked."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

import pytest

from llamabox.engine.drafting.asking import TRIED, Asking
from llamabox.engine.drafting.drafter import Draft, Source, Wish
from llamabox.engine.drafting.price import Step

STEP = Step([(0, 1)], 1, 100)
SEQUENCE: Any = object()
WISH: Any = None


class Guesser:
    """Guesses one token of each sequence, and takes two seconds for it; much longer now and then."""

    def __init__(self, *, computes: bool) -> None:
        self.computes = computes
        self.n_asked = 0
        self.now = 0.0

    def propose(self, wishes: Seq[Wish]) -> list[Draft | None]:
        self.n_asked += 1
        self.now += 2.0 * len(wishes) + (1000.0 if self.n_asked % 20 == 0 else 0.0)
        return [Draft([1], Source.MODEL, 1)] * len(wishes)


class Refusing:
    """A price at which nothing pays."""

    def promises(self, draft: Draft) -> float:
        return 0.5

    def seconds(self, step: Step) -> float:
        return 1.0

    def pays(self, *_: object) -> bool:
        return False


@pytest.mark.parametrize("computes", [False, True])
def test_only_who_computes_is_asked_less_where_it_does_not_pay(computes: bool) -> None:
    guesser = Guesser(computes=computes)
    asking = Asking([guesser], Refusing(), lambda: guesser.now)  # type: ignore[list-item, arg-type]
    for _ in range(5 * TRIED):
        found = asking.ask({SEQUENCE: WISH}, lambda: STEP)
        assert (SEQUENCE in found) or computes
        asking.computed(1.0)
    assert guesser.n_asked == (TRIED if computes else 5 * TRIED)


class Paying(Refusing):
    """A price at which three seconds pay."""

    def pays(self, step: Step, n_asking: int, length: float, promise: float, seconds: float) -> bool:
        return seconds <= 3.0


def test_what_many_take_together_says_little_about_one_alone() -> None:
    guesser = Guesser(computes=True)
    asking = Asking([guesser], Paying(), lambda: guesser.now)  # type: ignore[list-item, arg-type]
    crowd: dict[Any, Any] = {object(): WISH for _ in range(2)}
    for _ in range(2 * TRIED):
        asking.ask(crowd, lambda: STEP)
    assert guesser.n_asked == TRIED
    for n in range(TRIED):
        assert asking.ask({SEQUENCE: WISH}, lambda: STEP), n
    assert not asking.ask(crowd, lambda: STEP)


def test_a_round_that_was_held_up_counts_as_two() -> None:
    guesser = Guesser(computes=True)
    asking = Asking([guesser], Paying(), lambda: guesser.now)  # type: ignore[list-item, arg-type]
    for n in range(10 * TRIED):
        assert asking.ask({SEQUENCE: WISH}, lambda: STEP), n
