from __future__ import annotations

import pytest

from llamabox.clients.image.pace import Pace
from llamabox.imaging.events import Drawn, JobProgress, JobStarted
from tests.clients.image.image_harness import Clock, job


class Course:
    """A pace whose events come when a test says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pace = Pace(self.clock)

    def begin(self, steps: int, **fields: int) -> None:
        self.pace.begin(job("a", **fields), steps)
        self.pace.told(JobStarted("a"))

    def step(self, step: int, steps: int, *, index: int = 0, after: float) -> None:
        self.clock.now += after
        self.pace.told(JobProgress("a", index, step, steps))

    def drawn(self, index: int = 0, *, after: float) -> None:
        self.clock.now += after
        self.pace.told(Drawn("a", index, b"", 0, 0.0, 0.0, 4))


@pytest.fixture
def course() -> Course:
    return Course()


def test_what_is_left_is_steps_and_decoding_of_all_images(course: Course) -> None:
    course.begin(4, n=3)
    course.step(0, 4, after=7.0)  # the prompt: no part of a step
    assert not course.pace.is_measured
    for i in range(1, 5):
        course.step(i, 4, after=2.0)
        assert course.pace.left() == pytest.approx((12 - i) * 2.0)
        assert course.pace.left(one_image=True) == pytest.approx((4 - i) * 2.0)
    course.drawn(after=3.0)
    assert course.pace.left() == pytest.approx(8 * 2.0 + 2 * 3.0)
    assert course.pace.left(one_image=True) == pytest.approx(4 * 2.0 + 3.0)
    course.step(0, 4, index=1, after=1.0)
    course.step(3, 4, index=1, after=6.0)
    assert course.pace.left() == pytest.approx(5 * 2.0 + 2 * 3.0)
    assert course.pace.left(one_image=True) == pytest.approx(2.0 + 3.0)


def test_the_next_job_s_estimate_comes_from_the_last_and_its_size(course: Course) -> None:
    course.begin(2, width=256, height=256)
    course.step(0, 2, after=1.0)
    course.step(2, 2, after=2.0)  # two at once
    course.drawn(after=0.5)
    course.begin(10, width=512, height=256)
    assert course.pace.left() == pytest.approx(10 * 2.0 + 1.0)
    course.step(0, 3, after=0.0)  # the worker knows better how many there are
    assert course.pace.left() == pytest.approx(3 * 2.0 + 1.0)


def test_time_that_passes_counts_and_what_is_left_is_never_negative(course: Course) -> None:
    course.begin(4)
    course.step(0, 4, after=0.0)
    course.step(1, 4, after=2.0)
    course.clock.now += 1.5
    assert course.pace.left() == pytest.approx(3 * 2.0 - 1.5)
    course.step(4, 4, after=0.0)
    course.clock.now += 100.0
    assert course.pace.left() == 0.0


def test_a_step_that_takes_longer_than_any_before_is_the_measure_of_those_to_come(course: Course) -> None:
    course.begin(4)
    course.step(0, 4, after=0.0)
    course.clock.now += 10.0
    assert course.pace.left() == pytest.approx(4 * 10.0 - 10.0)


def test_the_newest_steps_weigh_most(course: Course) -> None:
    course.begin(100)
    course.step(0, 100, after=0.0)
    course.step(1, 100, after=1.0)
    for i in range(2, 20):
        course.step(i, 100, after=3.0)
    assert course.pace.left() == pytest.approx(81 * 3.0, rel=1e-3)


def test_where_only_whole_steps_are_told_the_first_is_taken_for_one(course: Course) -> None:
    course.begin(3)
    course.step(1, 3, after=2.0)
    assert course.pace.left() == pytest.approx(2 * 2.0)


def test_loads_are_measured(course: Course) -> None:
    for seconds in (3.0, 5.0):
        course.pace.load_began()
        course.clock.now += seconds
        course.pace.loaded()
        assert course.pace.load == seconds
