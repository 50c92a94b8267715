"""A drafter that computes is asked where that pays; one that has its guesses at hand is always asked."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from itertools import count
from typing import Any

import pytest

from llamabox.engine.drafting.asking import TRIED, Asking
from llamabox.engine.drafting.drafter import Draft, Source, Wish
from llamabox.engine.drafting.price import Step

STEP = Step([(0, 1)], 1, 100)
SEQUENCE: Any = object()
WISH: Any = None


class Guesser:
    """Guesses one token each time, and takes two seconds for it."""

    def __init__(self, *, computes: bool) -> None:
        self.computes = computes
        self.n_asked = 0

    def propose(self, wishes: Seq[Wish]) -> list[Draft | None]:
        self.n_asked += 1
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
    guesser, seconds, price = Guesser(computes=computes), count(step=2.0), Refusing()
    asking = Asking([guesser], price, lambda: next(seconds))  # type: ignore[list-item, arg-type]
    for _ in range(5 * TRIED):
        found = asking.ask({SEQUENCE: WISH}, lambda: STEP)
        assert (SEQUENCE in found) or computes
        asking.computed(1.0)
    assert guesser.n_asked == (TRIED if computes else 5 * TRIED)
