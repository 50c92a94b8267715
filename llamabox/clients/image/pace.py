"""Durations of an image worker's jobs and restarts, measured where its messages arrive."""

from __future__ import annotations

from collections.abc import Callable

from llamabox.imaging.events import Drawn, Event, JobProgress, JobStarted
from llamabox.imaging.job import ImageJob

SMOOTHING = 0.5
"""The weight of the newest measurement: jobs of other kinds may have gone before."""


class Pace:
    """Measures one worker after the other. All times are seconds of `clock`.

    Steps and decoding are measured per pixel, so that a job's first estimate can come from one of another size.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.load = 0.0  # from a worker's start until it was ready, the last time
        self.index = 0  # of the image that is drawn, as its last event told
        self.step = 0
        self.steps = 0
        self._clock = clock
        self._load_began = 0.0
        self._n_pixels = 0
        self._n_images = 0
        self._n_drawn = 0
        self._last = 0.0  # when the job's last event came
        self._is_sampling = False  # that event was a JobProgress: it is known when the step began
        self._step_rate: float | None = None  # seconds per pixel of one step
        self._decode_rate: float | None = None  # seconds per pixel, from the last step to the image

    def load_began(self) -> None:
        """Note that a worker was started."""
        self._load_began = self._clock()

    def loaded(self) -> None:
        """Note that the worker is ready."""
        self.load = self._clock() - self._load_began

    def begin(self, job: ImageJob, steps: int) -> None:
        """Note that a job goes to the worker. `steps` is the probable number of steps of an image."""
        self.index = self.step = self._n_drawn = 0
        self.steps = steps
        self._n_pixels = job.width * job.height
        self._n_images = job.n
        self._is_sampling = False
        self._last = self._clock()

    def told(self, event: Event) -> None:
        """Take in an event of the job that `begin` named."""
        now = self._clock()
        match event:
            case JobStarted():
                self._last = now
            case JobProgress():
                self._measure_step(event, now)
            case Drawn():
                if self._is_sampling or self._n_drawn:
                    self._decode_rate = self._mean(self._decode_rate, now - self._last)
                self._n_drawn += 1
                self._is_sampling = False
                self._last = now
                if self._n_drawn < self._n_images:
                    self.index, self.step = event.index + 1, 0

    @property
    def is_measured(self) -> bool:
        """Whether a step of this job, or of a job before it, was measured."""
        return self._step_rate is not None

    def left(self, *, one_image: bool = False) -> float:
        """Seconds that the job will still take, or the image that is drawn now.

        As far as was measured: a lower bound where no step was.
        """
        elapsed = self._clock() - self._last
        n_images = min(1, self._n_images - self._n_drawn) if one_image else self._n_images - self._n_drawn
        n_steps = max((1 if one_image else self._n_images - self.index) * self.steps - self.step, 0)
        step = (self._step_rate or 0.0) * self._n_pixels
        if self._is_sampling:
            step = max(step, elapsed)  # the step that is being computed takes as long at least
        decode = (self._decode_rate or 0.0) * self._n_pixels
        return max(n_steps * step + n_images * decode - elapsed, 0.0)

    def _measure_step(self, progress: JobProgress, now: float) -> None:
        n_done = progress.step - self.step if progress.index == self.index else progress.step
        if n_done > 0 and (self._is_sampling or self._step_rate is None):  # else something else came before that step
            self._step_rate = self._mean(self._step_rate, (now - self._last) / n_done)
        self.index, self.step, self.steps = progress.index, progress.step, progress.steps
        self._is_sampling = True
        self._last = now

    def _mean(self, rate: float | None, seconds: float) -> float:
        """`rate` with one more measurement of it."""
        new = seconds / self._n_pixels
        return new if rate is None else rate + SMOOTHING * (new - rate)
