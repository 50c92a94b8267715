"""The image worker as the server process sees it, and the queue before it.

One job at a time goes to the worker, so the end of a worker costs no other job anything.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llamabox.clients.client import NO_ENV, WorkerClient
from llamabox.clients.image.drawing import Drawing
from llamabox.clients.image.pace import Pace
from llamabox.clients.inbox import MAX_LAG
from llamabox.clients.state import WorkerState
from llamabox.clients.supervisor import Backoff
from llamabox.clients.suspects import Suspects
from llamabox.errors import ChannelBroken, LlamaboxError, QueueFull, ServerFault, Unavailable
from llamabox.imaging.config import ImageConfig, ImageModelInfo
from llamabox.imaging.events import Drawn, Event, JobFailed, JobFinished
from llamabox.imaging.job import ImageJob
from llamabox.wire.frames import Message
from llamabox.wire.image import Cancel, ConfigureImages, Draw, ImagesReady, Told

__all__ = ["Drawing", "ImageClient", "JobState", "QueueState"]

logger = logging.getLogger(__name__)

MAX_RETRY_AFTER = 3600
"""Seconds. A client that is told to wait for longer does not come back."""


@dataclass(frozen=True, slots=True)
class JobState:
    """Where a job is. `state` is "drawing", "waiting", or "leaving": drawn, though nobody wants it any more."""

    request_id: str
    state: str
    step: int
    steps: int
    index: int  # of the image that is drawn
    n: int


@dataclass(frozen=True, slots=True)
class QueueState:
    """The jobs of an image worker: the one that is drawn, and those that wait, in order."""

    n_running: int
    n_waiting: int
    jobs: list[JobState]


class ImageClient(WorkerClient[ImageConfig, ImageModelInfo]):
    """Runs an image worker, and gives it one job after the other; see WorkerClient."""

    def __init__(
        self,
        config: ImageConfig,
        *,
        module: str = "llamabox.workers.image",
        env: Mapping[str, str] = NO_ENV,  # on top of this process' own
        backoff: Backoff | None = None,
        max_lag: int = MAX_LAG,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("image", config, module=module, env=env, backoff=backoff)
        self.on_drawn: Callable[[Drawn], None] = lambda drawn: None  # of every image, also those nobody wants any more
        self._running: Drawing | None = None  # what the worker has, also when nobody wants it any more
        self._waiting: deque[Drawing] = deque()  # of these, none is closed
        self._is_left_to_finish = False  # the running one is leaving, and the log says that it may
        self._pace = Pace(clock)
        self._suspects = Suspects(clock)
        self._max_lag = max_lag

    @property
    def queue(self) -> QueueState:
        """The jobs at this moment. Nobody is asked."""
        jobs = []
        if (running := self._running) is not None:
            state = "leaving" if running.is_closed else "drawing"
            pace = self._pace
            jobs.append(JobState(running.job.request_id, state, pace.step, pace.steps, pace.index, running.job.n))
        jobs += [
            JobState(one.job.request_id, "waiting", 0, self._n_steps(one.job), 0, one.job.n) for one in self._waiting
        ]
        return QueueState(int(self._running is not None), len(self._waiting), jobs)

    @property
    def takes_jobs(self) -> bool:
        """Whether jobs are accepted: also while a worker is replaced because a client left, for the next worker."""
        return self.state is WorkerState.READY or (self.state is WorkerState.RESTARTING and self._is_planned)

    def draw(self, job: ImageJob) -> Drawing:
        """Give the job to the worker, or have it wait. `request_id` must not be that of one that is here.

        Raises Unavailable when the worker takes no jobs now, QueueFull when as many wait as may, ServerFault for a job
        that killed two workers.
        """
        is_ready = self.state is WorkerState.READY
        if is_ready or not self.takes_jobs:
            self._open_channel()
        known = [one.job.request_id for one in (self._running, *self._waiting) if one is not None]
        assert job.request_id not in known, f"job {job.request_id} is here already"
        if self._is_guilty(job):
            raise _refusal_of_guilty()
        is_free = is_ready and self._running is None
        if not is_free and len(self._waiting) >= self.config.n_parallel:
            raise QueueFull(
                f"The queue is full: no more than {self.config.n_parallel} may wait while one is drawn. Try again "
                "later, or start the server with a larger --parallel",
                retry_after=self._retry_after(),
            )
        drawing = Drawing(job, self._abandoned, self._max_lag)
        self._waiting.append(drawing)
        self._go_on()
        return drawing

    def _configure(self) -> Message:
        self._pace.load_began()
        return ConfigureImages(self.config)

    def _handle(self, message: Message) -> None:
        match message:
            case Told():
                self._take(message.event)
            case ImagesReady():
                self._pace.loaded()
                self._is_ready(message.info)
                self._go_on()
            case _:
                raise ChannelBroken(f"an image worker does not send {type(message).__name__}")

    def _take(self, event: Event) -> None:
        drawing = self._running
        if drawing is None or event.request_id != drawing.job.request_id:
            raise ChannelBroken(f"an event of {event.request_id} came, which is not being drawn")
        self._pace.told(event)
        if isinstance(event, Drawn):
            self.on_drawn(event)
        if isinstance(event, JobFinished | JobFailed):
            self._running = None
            if isinstance(event, JobFinished):
                self._suspects.clear(Draw(drawing.job))
            drawing.push(event)
            self._go_on()
            return
        drawing.push(event)
        if drawing.is_closed:
            self._stop_drawing(drawing.job)

    def _go_on(self) -> None:
        """Give the worker the next job if it has none, and tell the others their places."""
        while self._waiting and self._running is None and self._channel is not None:
            if self.state is not WorkerState.READY:
                break
            drawing = self._waiting.popleft()
            if self._is_guilty(drawing.job):  # by now
                drawing.fail(_refusal_of_guilty())
                continue
            try:
                self._channel.send(Draw(drawing.job))
            except LlamaboxError as error:
                drawing.fail(error)
                continue
            self._running = drawing
            self._is_left_to_finish = False
            self._pace.begin(drawing.job, self._n_steps(drawing.job))
        for place, drawing in enumerate(self._waiting, 1):
            drawing.queued(place)

    def _abandoned(self, drawing: Drawing) -> None:
        """A drawing's client left."""
        if drawing is not self._running:
            self._waiting.remove(drawing)
            logger.info("job %s is dropped: its client left while it waited", drawing.job.request_id)
            self._go_on()
            return
        if self._channel is not None:
            self._channel.send(Cancel(drawing.job.request_id))
        if self.info is not None and self.info.can_cancel:
            logger.info("job %s is cancelled: its client left", drawing.job.request_id)
        else:
            self._stop_drawing(drawing.job)

    def _stop_drawing(self, job: ImageJob) -> None:
        """Nobody wants the image that is drawn, and it cannot be cancelled: end the worker if that is quicker.

        To be called again at each of its events, because the first may come before anything is measured.
        """
        if self.info is None or self.info.can_cancel or self.state is not WorkerState.READY:
            return
        left, load = self._pace.left(one_image=True), self._pace.load
        reason = f"about {left:.1f} s of its image are left, and a restart takes about {load:.1f} s"
        if left > load:
            logger.info("the worker is restarted: the client of job %s left, %s", job.request_id, reason)
            self._restart()
        elif not self._is_left_to_finish:
            self._is_left_to_finish = True
            reason = reason if self._pace.is_measured else "no step was measured yet"
            logger.info("job %s goes on to the end of its image, though its client left: %s", job.request_id, reason)

    def _lost(self, sentence: str, *, died: bool) -> None:
        drawing, self._running = self._running, None
        if drawing is None:
            return
        if died:
            self._suspects.add([Draw(drawing.job)])
        drawing.fail(Unavailable(sentence))

    def _fail_all(self, sentence: str) -> None:
        """Fail each job with an exception of its own, because its task adds a traceback to it."""
        everything = [one for one in (self._running, *self._waiting) if one is not None]
        self._running = None
        self._waiting.clear()
        for drawing in everything:
            drawing.fail(Unavailable(sentence))

    def _is_guilty(self, job: ImageJob) -> bool:
        return self._suspects.is_guilty(Draw(job))

    def _n_steps(self, job: ImageJob) -> int:
        """Steps of one image, as far as they are known before the worker tells."""
        steps = job.steps or (self.info.steps if self.info is not None else 0)
        return steps + job.extra_steps

    def _retry_after(self) -> int:
        """Seconds until the first job that waits leaves the queue."""
        return min(max(math.ceil(self._pace.left()), 1), MAX_RETRY_AFTER)


def _refusal_of_guilty() -> ServerFault:
    return ServerFault(
        "This job was being drawn each time when the image worker died, twice: it is refused for an hour"
    )
