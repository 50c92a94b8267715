"""Whether a draft model pays is learnt from the clock: simulated engines with draft models of all kinds."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field

import pytest

from llamabox.engine.drafting.drafter import Key
from llamabox.workers.text.drafting.worth import RENEWAL, Worth


@dataclass
class Engine:
    """Steps take `step` seconds, and a draft `cost` more, for texts that then get `gain` further tokens each."""

    step: float
    cost: float
    gain: float
    n_texts: int = 1
    noise: float = 0.0
    now: float = 0.0
    n_asked: int = 0
    tokens: dict[Key, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.worth = Worth(lambda: self.now)
        self.tokens = {("r", i): 1 for i in range(self.n_texts)}
        self.chance = random.Random(1)

    def run(self, n_steps: int) -> float:
        """Seconds that each token took, over those of an engine without a draft model."""
        begun, n_before = self.now, sum(self.tokens.values())
        plain = 0.0
        for _ in range(n_steps):
            asked = self.worth.enter(dict(self.tokens))
            self.worth.leave(has_drafted=asked)
            self.n_asked += asked
            step = self.step * (1 + self.noise * self.chance.random())
            self.now += step + (self.cost if asked else 0)
            plain += step
            for key in self.tokens:
                self.tokens[key] += 1 + (asked and self.chance.random() < self.gain)
        n_tokens = sum(self.tokens.values()) - n_before
        return (self.now - begun) / n_tokens * self.n_texts * n_steps / plain


def test_a_model_that_does_not_pay_costs_next_to_nothing_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        for n_texts in (1, 16):
            engine = Engine(step=0.003, cost=0.003, gain=0.5, n_texts=n_texts, noise=0.5)
            assert engine.run(10_000) < 1.02
            caplog.clear()
            engine.run(1000)
            assert not caplog.records
        engine = Engine(step=0.003, cost=0.003, gain=0.5)
        engine.run(200)
    assert ["does not pay with one text" in record.message for record in caplog.records] == [True]


def test_a_model_that_pays_is_asked_nearly_always() -> None:
    engine = Engine(step=0.1, cost=0.01, gain=0.7, noise=0.5)
    engine.run(100)
    engine.n_asked = 0
    assert engine.run(1000) < 0.7
    assert engine.n_asked >= 1000 * (1 - 2 / RENEWAL)


def test_what_does_not_pay_is_found_to_pay_later_and_the_other_way() -> None:
    engine = Engine(step=0.01, cost=0.02, gain=0.7)
    engine.run(2000)
    engine.cost = 0.001
    engine.run(20_000)
    assert engine.run(500) < 0.75
    engine.cost = 0.02
    engine.run(500)
    assert engine.run(5000) < 1.03


def test_a_trial_ends_where_its_budget_does() -> None:
    """A draft that takes a second is not tried sixteen times."""
    engine = Engine(step=0.01, cost=1.0, gain=0.0)
    engine.run(300)
    assert 1 <= engine.n_asked <= 4
