"""A constraint whose masks are computed ahead says what the one inside it says, and leaves it to one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest

from llamabox.errors import InvalidRequest
from llamabox.workers.text.grammars.ahead import AheadConstraint, AheadGrammar
from llamabox.workers.text.grammars.beside import N_AT_ONCE, Beside
from tests.fakes import FakeConstraint, FakeGrammar


@pytest.fixture
def helper() -> Iterator[Beside]:
    with ThreadPoolExecutor(1) as pool:
        yield Beside(pool)


@pytest.mark.parametrize("seed", range(5))
def test_it_says_what_the_inner_constraint_says(helper: Beside, seed: int) -> None:
    grammar = FakeGrammar(seed=seed, n_tokens=30, period=3)
    ahead, plain = AheadGrammar(grammar, helper).start(), grammar.start()
    while not plain.is_complete:
        assert not ahead.is_complete
        assert ahead.forced(2) == plain.forced(2)
        plain.prepare()
        if seed % 2:
            ahead.prepare()
        assert ahead.mask().tolist() == plain.mask().tolist()
        token = plain.allowed()[-1]
        assert not ahead.try_accept(next(other for other in range(250) if other not in plain.allowed()))
        if seed == 4:
            assert ahead.try_accept(token)
        else:
            ahead.accept(token)
        plain.accept(token)
    assert ahead.is_complete


def test_what_it_moves_on_by_beside_the_decode_is_known_to_whoever_asks(helper: Beside) -> None:
    grammar = FakeGrammar(n_tokens=30, period=3, guesses=1)
    for begins in (True, False):
        ahead, plain = AheadGrammar(grammar, helper).start(), grammar.start()
        while not plain.is_complete:
            for one in (ahead, plain):
                one.prepare()
            token = plain.allowed()[-1]
            assert token in np.flatnonzero(np.unpackbits(ahead.mask().view(np.uint8), bitorder="little"))
            assert ahead.is_free_behind(token)
            ahead.accept_beside(token)
            if begins:
                helper.begin()
            plain.accept(token)
            assert ahead.is_prepared
            assert ahead.forced(2) == plain.forced(2)
        assert ahead.is_complete


def test_a_token_behind_which_the_grammar_cannot_go_on_fails_where_it_is_asked_next(helper: Beside) -> None:
    class Failing(FakeConstraint):
        def accept_beside(self, token: int) -> None:
            raise InvalidRequest("the fake cannot follow")

    constraint = AheadConstraint(Failing(FakeGrammar()), helper)
    constraint.accept_beside(1)
    helper.begin()
    for ask in (constraint.mask, partial(constraint.forced, 1), partial(constraint.is_free_behind, 1)):
        with pytest.raises(InvalidRequest):
            ask()


def test_a_grammar_that_cannot_go_on_says_so_where_the_mask_is_wanted(helper: Beside) -> None:
    constraint = AheadGrammar(FakeGrammar(fails_at=0), helper).start()
    constraint.prepare()
    with pytest.raises(InvalidRequest, match="cannot follow"):
        constraint.mask()


class Guarded(FakeConstraint):
    """Notes who computes, and is used by nobody else meanwhile."""

    def __init__(self, gate: Future[None]) -> None:
        super().__init__(FakeGrammar())
        self.gate = gate
        self.threads: list[str] = []
        self.is_at_work = False
        self.has_begun = threading.Event()

    def prepare(self, *, at_once: bool = False) -> None:
        self.is_at_work = True
        self.has_begun.set()
        self.threads.append(threading.current_thread().name)
        self.gate.result()
        super().prepare()
        self.is_at_work = False

    def forced(self, n_most: int) -> list[int]:
        assert not self.is_at_work
        return super().forced(n_most)


def test_the_helper_computes_the_mask_and_everything_else_waits_for_it(helper: Beside) -> None:
    gate: Future[None] = Future()
    inner = Guarded(gate)
    constraint = AheadConstraint(inner, helper)
    constraint.prepare()
    constraint.prepare()
    helper.begin()
    assert inner.has_begun.wait(60)
    threading.Timer(0.05, gate.set_result, [None]).start()
    constraint.forced(1)
    constraint.mask()
    assert len(inner.threads) == 1
    assert inner.threads[0] != threading.current_thread().name


def test_who_wants_a_mask_that_the_helper_has_not_begun_computes_it(helper: Beside) -> None:
    busy, gate = Future[None](), Future[None]()
    gate.set_result(None)
    helper.put(busy.result)
    helper.begin()
    inner = [Guarded(gate) for _ in range(3)]
    constraints = [AheadConstraint(one, helper) for one in inner]
    for constraint in constraints[:2]:
        constraint.prepare()
    for constraint in constraints:
        constraint.mask()
    busy.set_result(None)
    helper.begin()
    helper.put(lambda: None).result()
    assert [one.threads for one in inner] == 3 * [[threading.current_thread().name]]


class Passing(FakeConstraint):
    """Every token leaves its state as it is."""

    n_prepared = 0

    def prepare(self, *, at_once: bool = False) -> None:
        self.n_prepared += 1
        super().prepare()

    def accept(self, token: int) -> None:
        pass


def test_a_mask_that_is_still_right_is_not_computed_again(helper: Beside) -> None:
    inner = Passing(FakeGrammar())
    constraint = AheadConstraint(inner, helper)
    for _ in range(3):
        constraint.prepare()
        constraint.mask()
        constraint.accept(1)
    assert inner.n_prepared == 1


class Counting(ThreadPoolExecutor):
    n_woken = 0

    def submit(self, *args: Any, **named: Any) -> Any:
        self.n_woken += 1
        return super().submit(*args, **named)


def test_the_thread_is_woken_once_for_all_that_comes_while_it_is_at_work() -> None:
    gate: Future[None] = Future()
    done: list[int] = []
    with Counting(1) as pool:
        beside = Beside(pool)
        first = beside.put(gate.result)
        assert pool.n_woken == 0
        beside.begin()
        pieces = []
        for i in range(3 * N_AT_ONCE):
            pieces.append(beside.put(partial(done.append, i)))
            beside.begin()
        assert pool.n_woken == 1
        gate.set_result(None)
        for piece in (first, *reversed(pieces)):
            piece.result()
        assert sorted(done) == list(range(3 * N_AT_ONCE))
        assert pool.n_woken <= 4
        for i in range(100):  # whenever it is about to rest
            piece = beside.put(partial(done.append, i))
            beside.begin()
            piece.result()
            time.sleep(0 if i % 2 else 0.0001)
        assert done[-100:] == list(range(100))


def test_a_piece_that_fails_tells_who_waits_for_it_and_the_next_ones_are_done() -> None:
    def fail() -> None:
        raise InvalidRequest("the fake cannot follow")

    with ThreadPoolExecutor(1) as pool:
        beside = Beside(pool)
        bad, good = beside.put(fail), beside.put(lambda: None)
        beside.begin()
        good.result()
        for _ in range(2):
            with pytest.raises(InvalidRequest):
                bad.result()
