"""A greedy sequence under a grammar is sampled without masks first, and says what it says with masks.

Where a core is spare it has masks: they are computed there.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.drafting.verification import SIDE_BY_SIDE
from llamabox.engine.events import FinishReason
from llamabox.engine.seams import Ask
from llamabox.engine.sequence import TRIED_EVERY
from tests.engine.driver import Driver, alone, request
from tests.fakes import FakeConstraint, FakeDrafter, FakeGrammar, FakeRunner

GREEDY = {"temperature": 0.0}


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 20),
    period=st.sampled_from([1, 2, 3, 30]),
    n_choices=st.sampled_from([1, 5, 150]),
    may_end=st.booleans(),
    forces=st.booleans(),
    n_right=st.sampled_from([7, 2, 0, -1]),
    n_predict=st.sampled_from([7, -1]),
)
def test_texts_are_those_of_masks(
    seed: int, period: int, n_choices: int, may_end: bool, forces: bool, n_right: int, n_predict: int
) -> None:
    grammar = FakeGrammar(seed=seed, n_tokens=24, period=period, n_choices=n_choices, may_end=may_end, forces=forces)
    checked = request(grammar=grammar, n_predict=n_predict, sampling=GREEDY)
    # Who tells log-probabilities has a mask for each token, and none that is forced.
    masked = alone(request(grammar=grammar, n_predict=n_predict, sampling=GREEDY, n_probs=1))[0]
    found = [alone(checked)[0]]
    for has_spare_core in (False, True):
        drafter = FakeDrafter({("r", 0): masked.tokens}, n_right=n_right, length=7)
        drafted = Driver(FakeRunner(has_spare_core=has_spare_core), [drafter])
        drafted.submit(checked)
        drafted.run()
        found.append(drafted.transcripts["r", 0])
    for one in found:
        assert one.finished is not None
        assert masked.finished is not None
        assert (one.tokens, one.text) == (masked.tokens, masked.text)
        assert one.finished.stop_type == masked.finished.stop_type


@pytest.mark.parametrize(
    ("temperature", "has_spare_core", "n_least", "n_most"),
    [(0.0, False, 1, 40), (1.0, False, 55, 61), (0.0, True, 55, 61)],
)
def test_a_greedy_sequence_has_masks_only_where_its_choice_is_refused_or_a_core_is_spare_for_them(
    temperature: float, has_spare_core: bool, n_least: int, n_most: int
) -> None:
    driver = Driver(FakeRunner(has_spare_core=has_spare_core))
    wide = FakeGrammar(n_tokens=60, period=1, n_choices=600)  # nine of ten tokens
    driver.submit(request(grammar=wide, n_predict=60, sampling={"temperature": temperature}))
    n_masks = 0
    while not driver.engine.is_idle:
        driver.step()
        for sequence in driver.engine.running:
            assert isinstance(sequence.constraint, FakeConstraint)
            n_masks = sequence.constraint.n_masks
    assert n_least <= n_masks <= n_most


class Noting(FakeRunner):
    """Notes how many rows each call was asked for, and how many of them had a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int]] = []

    def sample(self, asks: Seq[Ask]) -> list[list[int]]:
        self.asked.append((len(asks), sum(bool(ask.masks) for ask in asks)))
        return super().sample(asks)


def test_where_tokens_are_refused_in_a_row_most_have_a_mask_at_once() -> None:
    runner = Noting()
    driver = Driver(runner)
    narrow = FakeGrammar(n_tokens=60, period=1, n_choices=2, forces=False)  # two of some hundred tokens
    driver.submit(request(grammar=narrow, n_predict=60, sampling=GREEDY))
    driver.run()
    n_unmasked = sum(n_masked == 0 for _, n_masked in runner.asked)
    assert 60 // TRIED_EVERY <= n_unmasked <= 60 // TRIED_EVERY + 6
    assert (len(runner.asked) - n_unmasked, len(runner.asked)) == (60, 60 + n_unmasked)


@pytest.mark.parametrize(("n", "n_prepared"), [(SIDE_BY_SIDE - 1, 0), (SIDE_BY_SIDE, SIDE_BY_SIDE)])
def test_masks_that_many_want_are_begun_before_one_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, n: int, n_prepared: int
) -> None:
    calls: list[str] = []

    def noted(name: str) -> Callable[[FakeConstraint], Any]:
        real = getattr(FakeConstraint, name)

        def call(constraint: FakeConstraint, *, at_once: bool = False) -> Any:
            if not constraint.is_ahead:
                calls.append(name)
                assert at_once == (name == "prepare"), "they are begun before the next decode"
            return real(constraint)

        return call

    for name in ("prepare", "mask"):
        monkeypatch.setattr(FakeConstraint, name, noted(name))
    driver = Driver(n_slots=n)
    for i in range(n):
        narrow = FakeGrammar(seed=i, period=1, n_choices=2, forces=False)
        driver.submit(request(f"r{i}", grammar=narrow, n_predict=1, sampling=GREEDY))
    driver.run()
    assert calls[: n_prepared + n] == n_prepared * ["prepare"] + n * ["mask"]


def test_a_grammar_that_cannot_go_on_fails_its_sequence_alone() -> None:
    driver = Driver()
    driver.submit(request("sick", grammar=FakeGrammar(fails_at=5, period=1), n_predict=-1, sampling=GREEDY))
    driver.submit(request("well", n_predict=12))
    driver.run()
    assert driver.transcripts["sick", 0].failed is not None
    well = driver.transcripts["well", 0].finished
    assert well is not None
    assert well.reason is FinishReason.LENGTH
