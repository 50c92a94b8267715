"""With the drafter that needs no model texts are what they are, and take fewer steps where they repeat."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.drafting.text.corpus import Corpus
from llamabox.engine.drafting.text.drafter import TextDrafter
from llamabox.engine.request import DraftingParams
from tests.engine.driver import Driver, alone, request

MINE, YOURS = DraftingParams(audience="mine"), DraftingParams(audience="yours")


def n_steps(driver: Driver) -> int:
    before = len(driver.runner.batches)
    driver.run()
    return len(driver.runner.batches) - before


@pytest.mark.parametrize(("drafting", "helps"), [(MINE, True), (YOURS, False), (DraftingParams(n_max=0), False)])
def test_an_answer_given_before_comes_in_fewer_steps_to_the_same_audience(
    drafting: DraftingParams, helps: bool
) -> None:
    driver = Driver(drafters=[TextDrafter(Corpus())])
    driver.submit(request("first", n_predict=40, drafting=MINE))
    n_first = n_steps(driver)
    driver.submit(request("again", n_predict=40, drafting=drafting))
    n_again = n_steps(driver)
    first, again = driver.transcripts["first", 0], driver.transcripts["again", 0]
    assert first.tokens == again.tokens
    assert again.finished is not None
    if helps:
        assert n_again < n_first / 3
        assert again.finished.timings.n_accepted > 30
    else:
        assert n_again > n_first * 0.8


def test_what_is_foreseen_is_said_in_few_steps() -> None:
    text = alone(request(n_predict=40))[0].tokens
    driver = Driver(drafters=[TextDrafter()])
    driver.submit(request(n_predict=40, drafting=DraftingParams(prediction=tuple(text))))
    assert n_steps(driver) <= 4
    assert driver.transcripts["r", 0].tokens == text


@settings(max_examples=25, deadline=None)
@given(
    asked=st.lists(
        st.tuples(
            st.lists(st.integers(1, 3), min_size=1, max_size=20),  # prompt
            st.integers(1, 90),  # n_predict
            st.sampled_from([0.0, 1.0]),  # temperature
            st.integers(1, 2),  # n
            st.integers(0, 6),  # steps until the next one comes
        ),
        min_size=1,
        max_size=6,
    ),
    foreseen=st.lists(st.integers(0, 256), max_size=30),
    aborted=st.integers(0, 8),
)
def test_texts_are_what_they_are_alone_and_nobody_is_followed_to_the_end_of_time(
    asked: list[tuple[list[int], int, float, int, int]], foreseen: list[int], aborted: int
) -> None:
    drafter = TextDrafter(Corpus(n_tokens=400))
    driver = Driver(drafters=[drafter], n_ctx=48)
    drafting = DraftingParams(prediction=tuple(foreseen))
    requests = []
    for i, (prompt, n_predict, temperature, n, n_wait) in enumerate(asked):
        sampling = {"seed": 3, "temperature": temperature}
        one = request(f"r{i}", tuple(prompt), n_predict=n_predict, n=n, sampling=sampling, drafting=drafting)
        requests.append(one)
        driver.submit(one)
        for _ in range(n_wait):
            driver.step()
        if i == aborted:
            driver.abort(one.request_id)
    driver.run()
    assert drafter.n_sequences == 0
    for i, one in enumerate(requests):
        if i != aborted:
            for index, solo in alone(one, n_ctx=48).items():
                assert driver.transcripts[one.request_id, index].tokens == solo.tokens
