"""An image client without a worker: it draws one-coloured pictures at once, or what the test pushes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from llamabox.clients.image.client import QueueState
from llamabox.clients.state import WorkerState
from llamabox.errors import LlamaboxError, Unavailable
from llamabox.imaging.config import ImageConfig, ImageModelInfo
from llamabox.imaging.events import Drawn, Event, JobFinished, JobProgress, JobStarted, Preview
from llamabox.imaging.job import ImageJob
from llamabox.server.hosted.seams import ImageService, Stream

IMAGES = ImageConfig(model="/models/tiny.gguf", n_parallel=2)

INFO = ImageModelInfo(
    path="/models/tiny.gguf",
    family="SD 1.x",
    sampler="euler_a",
    schedule="discrete",
    steps=4,
    cfg_scale=9.0,
    guidance=3.5,
    strength=0.75,
    width=512,
    height=512,
    can_cancel=True,
    can_preview=True,
    samplers=["euler", "euler_a", "lcm"],
    schedules=["discrete", "karras"],
    library="master-1-abc",
)

Script = Callable[[ImageJob], "list[Event] | LlamaboxError"]


def png(colour: str, width: int = 8, height: int = 8) -> bytes:
    out = BytesIO()
    Image.new("RGB", (width, height), colour).save(out, "PNG")
    return out.getvalue()


def drawing(job: ImageJob) -> list[Event]:
    """As a worker draws it: each image has the seed's own colour, and takes 100 ms a step after 10 ms."""
    steps = (job.steps or INFO.steps) + job.extra_steps
    events: list[Event] = [JobStarted(job.request_id)]
    for index in range(job.n):
        seed = job.seed + index
        picture = png(f"#{seed % 0x1000000:06x}", job.width, job.height)
        for step in range(1, steps + 1):
            if job.preview != "none":
                events.append(Preview(job.request_id, index, step, steps, png("grey")))
            events.append(JobProgress(job.request_id, index, step, steps))
        events.append(Drawn(job.request_id, index, picture, seed, 10.0, 100.0 * steps, steps))
    return [*events, JobFinished(job.request_id)]


class FakeDrawing:
    """Events as the test pushes them."""

    def __init__(self, job: ImageJob) -> None:
        self.job = job
        self.aborted = asyncio.Event()
        self._queue: asyncio.Queue[list[Event] | LlamaboxError] = asyncio.Queue()
        self._ended = False

    def push(self, *events: Event) -> None:
        self._queue.put_nowait(list(events))

    def fail(self, error: LlamaboxError) -> None:
        self._queue.put_nowait(error)

    async def batch(self) -> list[Event]:
        if self._ended:
            return []
        item = await self._queue.get()
        if isinstance(item, LlamaboxError):
            self._ended = True
            raise item
        self._ended = any(isinstance(event, JobFinished) for event in item)
        return item

    def abort(self) -> None:
        if not self._ended:
            self._ended = True
            self.aborted.set()


class FakeImageClient:
    """The face of ImageClient. With `script=None` the test takes each drawing from `asked()` and pushes events."""

    def __init__(self, script: Script | None = drawing, *, info: ImageModelInfo = INFO) -> None:
        self.state = WorkerState.READY
        self.trouble = ""
        self.info: ImageModelInfo | None = info
        self.script = script
        self.queue = QueueState(0, 0, [])
        self.n_restarts = 0
        self.takes_jobs = True
        self.on_drawn: Callable[[Drawn], None] = lambda drawn: None
        self.jobs: list[ImageJob] = []
        self.refusal: LlamaboxError | None = None
        self.after: LlamaboxError | None = None  # what a script's events end in
        self.stop_asked = asyncio.Event()
        self._arrivals: asyncio.Queue[FakeDrawing] = asyncio.Queue()

    async def start(self) -> None:
        pass

    async def wait_ready(self) -> ImageModelInfo:
        assert self.info is not None
        return self.info

    async def stop(self, grace: float) -> None:
        self.state = WorkerState.STOPPED

    def draw(self, job: ImageJob) -> FakeDrawing:
        if not self.takes_jobs:
            raise Unavailable("Loading model")
        if self.refusal is not None:
            raise self.refusal
        self.jobs.append(job)
        made = FakeDrawing(job)
        if self.script is None:
            self._arrivals.put_nowait(made)
            return made
        answer = self.script(job)
        if isinstance(answer, LlamaboxError):
            made.fail(answer)
        else:
            for event in answer:
                if isinstance(event, Drawn):
                    self.on_drawn(event)
                made.push(event)
        if self.after is not None:
            made.fail(self.after)
        return made

    async def asked(self) -> FakeDrawing:
        """The next drawing that a request asked for."""
        return await self._arrivals.get()


if TYPE_CHECKING:  # mypy holds each fake to the seam that it stands for
    _drawing: type[Stream[Event]] = FakeDrawing
    _image_service: type[ImageService] = FakeImageClient
