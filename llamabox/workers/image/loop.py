"""The image worker's loop: take a job, draw it, tell how it goes."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Protocol

from llamabox.errors import LlamaboxError, ServerFault, to_wire
from llamabox.imaging.config import ImageModelInfo
from llamabox.imaging.events import JobFailed, JobFinished, JobStarted, WorkerEvent
from llamabox.imaging.job import ImageJob
from llamabox.wire.image import Told
from llamabox.wire.signs.pulse import Pulse
from llamabox.wire.worker_end import WorkerEnd

logger = logging.getLogger(__name__)


class ImagePipeline(Protocol):
    """The part of imaging.pipeline.Pipeline that a worker needs: a real seam, with fakes in tests."""

    @property
    def info(self) -> ImageModelInfo: ...
    def draw(self, job: ImageJob, emit: Callable[[WorkerEvent], None]) -> None:
        """Blocks until all images are drawn, or the job is cancelled. Raises LlamaboxError."""

    def cancel(self) -> bool:
        """From any thread: end the draw that runs. False where the library cannot: then after its image."""

    def close(self) -> None: ...


class ImageLoop:
    """Draws on the thread that calls `run`. All other methods may be called from any thread."""

    def __init__(self, channel: WorkerEnd, pipeline: ImagePipeline, pulse: Pulse) -> None:
        self._channel = channel
        self._pipeline = pipeline
        self._pulse = pulse
        self._jobs: queue.SimpleQueue[ImageJob | None] = queue.SimpleQueue()  # None: the end
        self._lock = threading.Lock()  # guards the three below, and that a cancel meets the job it is for
        self._drawn: str | None = None  # the id of the job that is drawn
        self._cancelled: str | None = None  # of one that is to be ended
        self._is_ending = False

    def run(self) -> None:
        """Serve until `end`."""
        while (job := self._jobs.get()) is not None:
            self._channel.send(Told(JobStarted(job.request_id)))
            with self._pulse.work("drawing", computes=True):
                self._channel.send(Told(self._draw(job)))

    def take(self, job: ImageJob) -> None:
        """Draw a job, after those that were taken before."""
        self._jobs.put(job)

    def cancel(self, request_id: str) -> None:
        """End a job as soon as possible, if it is here. Only the job taken last is cancelled."""
        with self._lock:
            self._cancelled = request_id
            if self._drawn == request_id:
                self._pipeline.cancel()

    def end(self) -> bool:
        """Have `run` return, and say whether it is about to: a draw that is under way cannot be waited for."""
        self._jobs.put(None)
        with self._lock:
            self._is_ending = True
            return self._drawn is None

    def _tell(self, event: WorkerEvent) -> None:
        self._channel.send(Told(event))
        if self._cancelled == event.request_id:  # that may have come when the draw had hardly begun
            self._pipeline.cancel()

    def _draw(self, job: ImageJob) -> WorkerEvent:
        """Draw a job. Returns its last event."""
        with self._lock:
            if self._is_ending or self._cancelled == job.request_id:
                return JobFinished(job.request_id)
            self._drawn = job.request_id
        try:
            self._pipeline.draw(job, self._tell)
        except LlamaboxError as error:
            return JobFailed(job.request_id, to_wire(error))
        except Exception as error:  # else the server would wait for ever
            logger.exception("job %s", job.request_id)
            return JobFailed(job.request_id, to_wire(ServerFault(f"drawing failed: {error}")))
        finally:
            with self._lock:
                self._drawn = None
        return JobFinished(job.request_id)
