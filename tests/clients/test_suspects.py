from __future__ import annotations

from dataclasses import replace

import pytest

from llamabox.clients import suspects as suspects_module
from llamabox.clients.suspects import MAX_SUSPECTS, MEMORY, Question, Suspects
from llamabox.engine.request import GenerationParams
from llamabox.wire.frames import encode
from llamabox.wire.text import Submit
from tests.clients.harness import submit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_second_death_makes_guilty_whatever_the_id() -> None:
    suspects = Suspects(Clock())
    killer = submit("a", "x")
    suspects.add([killer])
    assert not suspects.is_guilty(killer)
    suspects.add([replace(killer, request_id="b")])
    assert suspects.is_guilty(replace(killer, request_id="c"))
    assert not suspects.is_guilty(submit("a", "y"))


def test_other_settings_make_another_request() -> None:
    suspects = Suspects(Clock())
    killers = [submit("a", "x", n=n) for n in (1, 2)]
    for _ in range(2):
        suspects.add([killers[1]])
    assert [suspects.is_guilty(killer) for killer in killers] == [False, True]
    assert [suspects.is_guilty(replace(killer, prompt=["y"])) for killer in killers] == [False, False]


def test_what_all_prompts_share_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    n_bytes: list[int] = []

    def spied(question: Question) -> bytes:
        n_bytes.append(len(encode(question)))
        return encode(question)

    monkeypatch.setattr(suspects_module, "encode", spied)
    suspects = Suspects(Clock())
    suspects.add([submit("a", "x")])
    params = GenerationParams(stop=("x" * 100_000,))
    assert not any(suspects.is_guilty(Submit(request_id=str(i), prompt=[i], params=params)) for i in range(100))
    assert sum(n_bytes) < 300_000


def test_copies_of_a_request_in_one_death_count_once() -> None:
    suspects = Suspects(Clock())
    suspects.add([submit("a", "x"), submit("b", "x")])
    assert not suspects.is_guilty(submit("c", "x"))


def test_a_request_that_is_served_to_its_end_is_cleared() -> None:
    suspects = Suspects(Clock())
    innocent = submit("a", "x")
    suspects.add([innocent])
    suspects.clear(innocent)
    suspects.add([innocent])
    assert not suspects.is_guilty(innocent)


def test_deaths_are_forgotten_after_an_hour_without_another() -> None:
    clock = Clock()
    suspects = Suspects(clock)
    suspects.add([submit("a", "x")])
    suspects.add([submit("a", "x"), submit("b", "y")])
    clock.now = MEMORY
    assert suspects.is_guilty(submit("a", "x"))
    suspects.add([submit("b", "y")])
    clock.now = MEMORY + 1.0
    assert not suspects.is_guilty(submit("a", "x"))
    assert suspects.is_guilty(submit("b", "y"))


def test_memory_is_bounded_and_the_newest_are_kept() -> None:
    suspects = Suspects(Clock())
    for _ in range(2):
        suspects.add(submit("a", str(i)) for i in range(2 * MAX_SUSPECTS))
    n_guilty = sum(suspects.is_guilty(submit("a", str(i))) for i in range(2 * MAX_SUSPECTS))
    assert n_guilty <= MAX_SUSPECTS
