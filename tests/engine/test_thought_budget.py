"""A thought has no more tokens than its request allows: then its end is said, whatever the model thinks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamabox.engine.request import ThoughtBudget
from tests.engine.driver import Driver, Transcript, request
from tests.engine.test_law import Case, obeyed, settled
from tests.fakes import FakeDrafter, FakeGrammar

MESSAGE, CLOSE = (90, 91), (60, 61)
END = bytes((*MESSAGE, *CLOSE)).decode()


def budget(n_tokens: int, **fields: Any) -> ThoughtBudget:
    usual = {"opens": ("\x05",), "closes": ("<=",), "is_begun": True, "message_tokens": MESSAGE, "close_tokens": CLOSE}
    return ThoughtBudget(n_tokens=n_tokens, **usual | fields)


def say(thought: ThoughtBudget | None, drafter: FakeDrafter | None = None, **params: Any) -> Transcript:
    driver = Driver(None, [] if drafter is None else [drafter])
    driver.submit(request(thought=thought, **{"n_predict": 30, **params}))
    driver.run()
    return driver.transcripts["r", 0]


@pytest.mark.parametrize("n_tokens", [0, 1, 2, 9])
def test_a_thought_of_the_prompt_ends_with_its_message_once_it_is_used_up(n_tokens: int) -> None:
    free, found = say(None).tokens, say(budget(n_tokens)).tokens
    n_said = found.index(MESSAGE[0])
    assert n_said >= n_tokens  # a character that is cut has its last byte
    assert all(token >= 0x80 for token in found[n_tokens:n_said])
    assert found[:n_said] == free[:n_said]
    assert tuple(found[n_said : n_said + 4]) == (*MESSAGE, *CLOSE)
    assert len(found) == 30


def test_a_thought_that_ends_by_itself_is_left_alone() -> None:
    free = say(None)
    thought = budget(12, closes=(free.text[5],), opens=())
    assert say(thought).tokens == free.tokens


def test_a_thought_that_the_model_begins_is_counted_from_there_and_the_next_one_with_it() -> None:
    free = say(None, n_predict=60).tokens
    opening = next(token for token in free if token < 60)
    n_before = free.index(opening)
    thought = budget(3, opens=(chr(opening),), closes=("<=",), is_begun=False)
    found = say(thought, n_predict=300).tokens
    end = (*MESSAGE, *CLOSE)
    at = found.index(MESSAGE[0])
    assert found[:at] == free[:at]
    assert n_before + 1 + 3 <= at <= n_before + 1 + 3 + 3
    assert tuple(found[at : at + 4]) == end
    for i in range(at + 4, 297):  # a later thought ends at once, without the message
        if found[i] == opening:
            assert tuple(found[i + 1 : i + 3]) == CLOSE


@pytest.mark.parametrize("n_right", [4, -1, 0])
@pytest.mark.parametrize("n_tokens", [0, 1, 3, 10])
def test_no_draft_goes_beyond_it(n_right: int, n_tokens: int) -> None:
    thought = budget(n_tokens)
    expected = say(thought)
    drafter = FakeDrafter({("r", 0): expected.tokens}, n_right=n_right)
    assert say(thought, drafter).tokens == expected.tokens


def test_all_tokens_have_log_probabilities() -> None:
    found = say(budget(3), n_probs=2, post_sampling_probs=True)
    assert found.tokens == say(budget(3)).tokens
    assert [one.chosen.token for one in found.probs] == found.tokens


def test_penalties_see_the_end() -> None:
    driver = Driver()
    driver.submit(request(thought=budget(3), sampling={"repeat_penalty": 1.3}, n_predict=20))
    driver.run()
    assert driver.runner.samplers[0].history == [1, 2, 3, *driver.transcripts["r", 0].tokens]


def test_a_thought_goes_on_where_the_grammar_does_not_allow_its_end() -> None:
    grammar = FakeGrammar(n_tokens=20)
    assert say(budget(3), grammar=grammar).tokens == say(None, grammar=grammar).tokens


@pytest.mark.parametrize("n_predict", [1, 2, 3, 4, 5])
def test_the_end_of_a_thought_counts_as_other_tokens_do(n_predict: int) -> None:
    assert len(say(budget(1), n_predict=n_predict).tokens) == n_predict


def test_a_speed_limit_holds_for_the_end() -> None:
    found = say(budget(2, message_tokens=(90,) * 40), n_predict=60, tokens_per_second=20)
    assert found.tokens == say(budget(2, message_tokens=(90,) * 40), n_predict=60).tokens
    assert found.finished is not None
    assert found.finished.timings.predicted_ms >= 1000 * 58 / 20


thoughts = st.builds(
    ThoughtBudget,
    n_tokens=st.sampled_from([0, 1, 3, 10]),
    opens=st.just(tuple(map(chr, range(1, 60)))),
    closes=st.just(tuple(map(chr, range(60, 70)))),
    is_begun=st.booleans(),
    message_tokens=st.sampled_from([(), (90, 91, 92)]),
    close_tokens=st.sampled_from([(60,), (0xC3, 61)]),
)
"""Every fourth token begins a thought, and fewer end one; others are parts of characters."""


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=settled, budgets=st.lists(thoughts, min_size=1, max_size=3))
def test_whatever_else_happens_a_text_is_what_it_is_alone(case: Case, budgets: list[ThoughtBudget]) -> None:
    script = [
        (act, {**asked, "thought": budgets[i % len(budgets)]} if isinstance(asked, dict) else asked)
        for i, (act, asked) in enumerate(case.script)
    ]
    obeyed(replace(case, script=script))
