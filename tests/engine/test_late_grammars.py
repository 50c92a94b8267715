"""Prompts are computed while their grammars are compiled; nothing is said, and nobody else waits, before these come."""

from __future__ import annotations

import pytest

from llamabox.engine.events import PrefillStart, Progress
from llamabox.errors import InvalidRequest, ServerFault, to_wire
from tests.engine.driver import Driver, alone, request
from tests.fakes import FakeGrammar, FakeRunner

PROMPT = tuple(range(1, 41))


def computed(driver: Driver) -> list[int]:
    return [one.n_computed for one in driver.engine.running]


def steps(driver: Driver, n: int) -> None:
    for _ in range(n):
        driver.engine.step()


def test_all_but_the_last_cell_is_computed_and_then_it_begins_as_alone() -> None:
    driver = Driver(FakeRunner(n_batch=8))
    asked = request(prompt=PROMPT, grammar=FakeGrammar())
    driver.submit(asked, late=True)
    for _ in range(9):
        assert driver.engine.step().events == []
    assert computed(driver) == [39]
    assert driver.engine.rest() > 1e9
    n_batches = len(driver.runner.batches)
    steps(driver, 3)
    assert len(driver.runner.batches) == n_batches, "it waits without a decode"
    driver.compile(0)
    driver.run()
    assert driver.transcripts["r", 0].tokens == alone(asked)[0].tokens


def test_others_go_on_beside_one_that_waits() -> None:
    driver = Driver()
    driver.submit(request("late", PROMPT, grammar=FakeGrammar()), late=True)
    driver.submit(request("text", (7, 8, 9), n_predict=5))
    while not driver.transcripts["text", 0].is_over:
        driver.step()
    assert computed(driver) == [39]
    driver.run()
    assert driver.transcripts["late", 0].finished


@pytest.mark.parametrize("fields", [{"return_progress": True}, {"n_prompt_probs": 2}, {}], ids=str)
def test_nothing_is_told_of_a_prompt_before_it_is_certain_that_it_will_be_answered(fields: dict[str, object]) -> None:
    driver = Driver(FakeRunner(n_batch=8, n_ubatch=8))
    driver.submit(request(prompt=PROMPT, grammar=FakeGrammar(), **fields), late=True)  # type: ignore[arg-type]
    for _ in range(3):
        assert driver.engine.step().events == []
    assert computed(driver) == [0 if fields else 24]
    driver.compile(0)
    [told, *_] = driver.engine.step().events
    assert isinstance(told, Progress if "return_progress" in fields else PrefillStart)


def test_a_short_prompt_waits_whole_since_its_last_cell_would_take_a_step_of_its_own() -> None:
    driver = Driver()
    driver.submit(request(prompt=(1, 2, 3), grammar=FakeGrammar()), late=True)
    steps(driver, 2)
    assert computed(driver) == [0]
    driver.run()
    assert len(driver.runner.batches[0].runs[0]) == 3


@pytest.mark.parametrize("error", [InvalidRequest("Field 'tools': too large"), ServerFault("the grammar …")])
@pytest.mark.parametrize("n_before", [0, 3], ids=["in line", "with a slot"])
def test_a_refusal_ends_all_choices_at_once(error: InvalidRequest | ServerFault, n_before: int) -> None:
    driver = Driver(n_slots=2)
    if not n_before:
        driver.submit(request("busy", n=2, n_predict=40))
        driver.step()
    driver.submit(request("late", PROMPT, grammar=FakeGrammar(), n=2), late=True)
    steps(driver, n_before)
    del driver.compiling["late"]
    driver.engine.refuse("late", error)
    driver.step()
    for index in range(2):
        failed = driver.transcripts["late", index].failed
        assert failed is not None
        assert failed.error == to_wire(error)
    driver.engine.refuse("late", error)
    driver.engine.refuse("nobody", error)
    driver.run()


def test_an_abort_frees_its_slot() -> None:
    driver = Driver(n_slots=1)
    driver.submit(request("late", PROMPT, grammar=FakeGrammar()), late=True)
    steps(driver, 2)
    driver.abort("late")
    driver.submit(request("next", PROMPT, n_predict=1))
    driver.run()
    started = driver.transcripts["next", 0].started
    assert started is not None
    assert started.n_cached == 39, "what it had computed is of use"


def test_a_request_of_no_token_is_answered_once_its_grammar_is_there() -> None:
    driver = Driver()
    driver.submit(request(prompt=PROMPT, grammar=FakeGrammar(), n_predict=0), late=True)
    for _ in range(4):
        assert driver.engine.step().events == []
    driver.run()
    assert driver.transcripts["r", 0].finished
