"""A device that computes beside the host, which then has things to do, and whose time counts as the decode's."""

from __future__ import annotations

import pytest

from llamabox.engine.batch import Batch
from llamabox.engine.events import AT_ONCE, StepTimes
from llamabox.engine.grammar import TokenMask
from tests.engine.driver import Clock, Driver, alone, request
from tests.engine.scheduling.timed import LARGE, SMALL, Machine, Timed
from tests.fakes import FakeConstraint, FakeGrammar, FakeRunner

SECONDS = 1.0


class DeviceRunner(FakeRunner):
    """Its batches are computed once somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.clock: Clock | None = None
        self.is_computing = False

    def execute(self, batch: Batch) -> None:
        super().execute(batch)
        self.is_computing = True

    def wait(self) -> None:
        if self.is_computing and self.clock is not None:
            self.clock.now += SECONDS
        self.is_computing = False


def test_what_a_device_computes_is_the_decodes_time_and_the_host_waits_for_no_more() -> None:
    runner = DeviceRunner()
    driver = Driver(runner)
    runner.clock = driver.clock
    driver.submit(request("a", (1, 2, 3), n_predict=3))
    for _ in range(3):
        times = driver.engine.step().times
        assert times is not None
        assert times.decode >= SECONDS
        assert times.host < 0.1 * SECONDS


def test_what_a_prompt_takes_is_known_on_a_device_too_so_that_running_texts_keep_their_pace() -> None:
    gaps: dict[tuple[Machine, bool], list[list[float]]] = {}
    for machine in (SMALL, LARGE):
        for has_device in (False, True):
            timed = Timed(machine, has_device=has_device)
            texts = timed.come([20, 30], n_predict=40)
            timed.run(texts, n_tokens=3)
            timed.come([700, 300])
            timed.run(texts)
            gaps[machine, has_device] = [text.gaps for text in texts]
        assert gaps[machine, True] == gaps[machine, False]


def test_masks_are_asked_for_while_the_device_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = DeviceRunner()
    beside: list[bool] = []

    class Noting(FakeConstraint):
        def mask(self) -> TokenMask:
            beside.append(runner.is_computing)
            return super().mask()

    monkeypatch.setattr("tests.fakes.FakeConstraint", Noting)
    asked = request(sampling={"temperature": 1.0}, grammar=FakeGrammar(n_tokens=12))  # a greedy one wants few masks
    driver = Driver(runner)
    driver.submit(asked)
    driver.run()
    assert beside
    assert all(beside)
    assert driver.transcripts["r", 0].tokens == alone(asked)[0].tokens


@pytest.mark.parametrize(
    ("waited", "decode", "sample"),
    [(5.0, 2.0 + 1.0 + 5.0, 0.5), (AT_ONCE / 2, 2.0, 1.0 + 0.5), (0.0, 2.0, 1.0 + 0.5)],
    ids=["beside a device", "behind it", "on a CPU"],
)
def test_what_the_host_does_is_its_time_unless_the_device_is_at_work_longer(
    waited: float, decode: float, sample: float
) -> None:
    parts = (0.1, 2.0, 1.0, waited, 0.5, 0.3)  # to plan, submit, get ready, wait, sample, update
    marks = [10.0]
    for seconds in parts:
        marks.append(marks[-1] + seconds)
    times = StepTimes.of(*marks)
    assert times.schedule == pytest.approx(0.1)
    assert times.decode == pytest.approx(decode, abs=AT_ONCE)
    assert times.sample == pytest.approx(sample, abs=AT_ONCE)
    assert times.update == pytest.approx(0.3)
    assert times.host + times.decode == pytest.approx(sum(parts))
