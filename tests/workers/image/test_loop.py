"""Orders that come at an awkward moment, over a real channel and a pipeline that a test leads by the hand."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from llamabox.imaging.config import ImageModelInfo
from llamabox.imaging.events import Drawn, JobFinished, JobProgress, JobStarted, WorkerEvent
from llamabox.imaging.job import ImageJob
from llamabox.wire.common import Shutdown
from llamabox.wire.frames import Message
from llamabox.wire.image import Cancel, Draw, Told
from llamabox.wire.signs.pulse import Pulse
from llamabox.wire.worker_end import WorkerEnd
from llamabox.workers.body import Body
from llamabox.workers.image.loop import ImageLoop
from llamabox.workers.image.reader import ImageReader
from tests.server.fake_images import INFO

WAIT = 30.0


@dataclass
class LedPipeline:
    """Draws when it is let. As the real one does, a draw forgets what was cancelled before it."""

    info: ImageModelInfo = INFO
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may_begin: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    is_cancelled: bool = False
    is_closed: bool = False

    def draw(self, job: ImageJob, emit: Callable[[WorkerEvent], None]) -> None:
        self.entered.release()
        assert self.may_begin.acquire(timeout=WAIT)
        self.is_cancelled = False
        for step in range(3):
            emit(JobProgress(job.request_id, 0, step, 2))
            if self.is_cancelled:
                return
        emit(Drawn(job.request_id, 0, b"png", job.seed, 0.0, 0.0, 2))

    def cancel(self) -> bool:
        self.is_cancelled = True
        return True

    def close(self) -> None:
        self.is_closed = True


class Worker:
    """The two threads of a worker, and the server's end of its channel."""

    def __init__(self, ours: WorkerEnd, theirs: WorkerEnd) -> None:
        self.channel = ours
        self.pipeline = LedPipeline()
        pulse = Pulse(theirs, 0.0)
        self.loop = ImageLoop(theirs, self.pipeline, pulse)
        self.stopping = threading.Event()
        reader = ImageReader(Body(theirs, pulse, self.stopping))
        reader.serve(self.loop)
        reader.start()

    def expect(self, *messages: Message) -> None:
        for message in messages:
            assert self.channel.receive() == message

    def begins(self, request_id: str) -> None:
        """That job is being drawn, and waits to be let."""
        self.channel.send(draw(request_id))
        assert self.pipeline.entered.acquire(timeout=WAIT)
        self.expect(Told(JobStarted(request_id)))


@contextmanager
def running() -> Iterator[Worker]:
    """Its loop on a thread of its own, which must end with the block."""
    ours, theirs = socket.socketpair()
    with closing(WorkerEnd(ours)) as server, closing(WorkerEnd(theirs)) as client:
        worker = Worker(server, client)
        thread = threading.Thread(target=worker.loop.run)
        thread.start()
        yield worker
        worker.stopping.set()
        worker.loop.end()
        thread.join(WAIT)
        assert not thread.is_alive()


def draw(request_id: str) -> Draw:
    return Draw(ImageJob(request_id=request_id, prompt="x"))


def whole(request_id: str) -> list[Message]:
    steps: list[WorkerEvent] = [JobProgress(request_id, 0, step, 2) for step in range(3)]
    events = [JobStarted(request_id), *steps, Drawn(request_id, 0, b"png", 0, 0.0, 0.0, 2), JobFinished(request_id)]
    return [Told(event) for event in events]


def test_a_job_that_is_cancelled_before_it_is_begun_is_not_drawn() -> None:
    with running() as worker:
        worker.begins("a")
        worker.loop.take(draw("b").job)
        worker.loop.cancel("b")
        worker.pipeline.may_begin.release()
        worker.expect(*whole("a")[1:], Told(JobStarted("b")), Told(JobFinished("b")))


def test_a_cancel_that_a_draw_has_forgotten_as_it_began_ends_it_all_the_same() -> None:
    with running() as worker:
        worker.begins("a")
        worker.loop.cancel("a")
        worker.pipeline.may_begin.release()
        worker.expect(Told(JobProgress("a", 0, 0, 2)), Told(JobFinished("a")))


def test_a_cancel_that_comes_too_late_is_nothing_to_the_next_job() -> None:
    with running() as worker:
        for _ in range(2):
            worker.pipeline.may_begin.release()
        worker.channel.send(draw("a"))
        worker.expect(*whole("a"))
        worker.channel.send(Cancel("a"))
        worker.channel.send(draw("b"))
        worker.expect(*whole("b"))


def test_the_end_waits_for_no_draw_and_begins_none() -> None:
    with running() as worker:
        worker.begins("a")
        worker.loop.take(draw("b").job)
        assert not worker.loop.end()
        worker.pipeline.may_begin.release()
        worker.expect(*whole("a")[1:], Told(JobStarted("b")), Told(JobFinished("b")))


def test_shutdown_ends_an_idle_loop() -> None:
    with running() as worker:
        worker.channel.send(Shutdown())
        assert worker.stopping.wait(WAIT)
