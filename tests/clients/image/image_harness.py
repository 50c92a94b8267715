"""What the tests of the image worker share: clients of the fake one, jobs, and a gate at which its draws wait."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamabox.clients.image.client import ImageClient
from llamabox.clients.image.drawing import Drawing
from llamabox.clients.supervisor import Backoff
from llamabox.imaging.config import ImageConfig
from llamabox.imaging.events import Drawn, Event, JobProgress
from llamabox.imaging.job import ImageJob
from tests.clients.harness import worker_env


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Stage:
    """Where a test's workers count their lives and wait at the gate. Clock: the client's."""

    folder: Path
    clock: Clock
    pipe: int

    def let(self, n: int = 1) -> None:
        """Whoever waits at the gate may take that many steps."""
        os.write(self.pipe, b"." * n)

    async def has_cancelled(self) -> None:
        """Until a worker knows that a draw is to end: what is let before that, it may draw."""
        while not self._cancels.exists():
            await asyncio.sleep(0.01)

    @property
    def _cancels(self) -> Path:
        return self.folder / "cancels"

    def client(self, script: str = "fine", *, n_parallel: int = 4, **config: Any) -> ImageClient:
        told = {"FAKE_GATE": str(self.folder / "gate"), "FAKE_CANCELS": str(self._cancels)}
        return ImageClient(
            ImageConfig(model=script, n_parallel=n_parallel, **config),
            module="tests.clients.image.fake_image_worker",
            env={**worker_env(self.folder / "lives"), **told},
            backoff=Backoff(first=0.01, most=0.05),
            clock=self.clock,
        )

    @asynccontextmanager
    async def ready(self, script: str = "fine", **arguments: Any) -> AsyncIterator[ImageClient]:
        async with self.client(script, **arguments) as client:
            await client.wait_ready()
            yield client


def job(request_id: str, prompt: str = "draw", **fields: Any) -> ImageJob:
    return ImageJob(request_id=request_id, prompt=prompt, **fields)


async def all_of(drawing: Drawing) -> list[Event]:
    events: list[Event] = []
    while batch := await drawing.batch():
        events += batch
    return events


async def until(drawing: Drawing, wanted: Event) -> list[Event]:
    """The events up to `wanted`, which must be the last that there is by then."""
    events: list[Event] = []
    while wanted not in events:
        batch = await drawing.batch()
        assert batch, f"the job ended without {wanted}: {events}"
        events += batch
    return events


def step(request_id: str, n: int, steps: int = 2, index: int = 0) -> JobProgress:
    return JobProgress(request_id, index, n, steps)


def images(events: list[Event]) -> list[bytes]:
    return [event.png for event in events if isinstance(event, Drawn)]
