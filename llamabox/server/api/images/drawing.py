"""One image request on its way: its job in the queue, and its two ways to be answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import Response

from llamabox.imaging.events import Drawn, Event, JobProgress, JobStarted, Preview, Queued
from llamabox.imaging.job import ImageJob
from llamabox.server.api.images.fields import ImageOptions
from llamabox.server.api.images.writer import DONE, PictureShape
from llamabox.server.hosted.images import HostedImages
from llamabox.server.http.errors import image_error_event
from llamabox.server.http.json import JsonResponse
from llamabox.server.http.record import RequestRecord
from llamabox.server.http.sse import EventStream


class PictureReply:
    """Draws `job`. Leaving either way early, by close or cancellation, ends it."""

    def __init__(
        self, hosted: HostedImages, record: RequestRecord, job: ImageJob, options: ImageOptions, event_name: str
    ) -> None:
        self._hosted = hosted
        self._record = record
        self._job = job
        self._options = options
        self._shape = PictureShape(
            created=int(time.time()),
            model=options.model,
            size=f"{job.width}x{job.height}",
            n=job.n,
            include_usage=options.include_usage,
            chunk_size=options.chunk_size,
            openai=event_name if options.for_openai else None,
        )
        self._drawn: list[Drawn] = []
        self._previews = [0] * job.n  # that were sent of each image
        self._state = b""  # the comment that keeps a silent stream alive

    async def answer(self) -> Response:
        """Either way, as the request asks."""
        if self._options.stream:
            return EventStream(
                self._chunks(), ping_interval=self._options.ping_interval, ping=self._comment, failed=image_error_event
            )
        async with aclosing(self._events()) as events:
            async for _ in events:
                pass
        return JsonResponse(self._shape.whole(self._drawn))

    async def _events(self) -> AsyncGenerator[Event, None]:
        arrived = time.perf_counter()
        drawing = self._hosted.client.draw(self._job)
        try:
            while batch := await drawing.batch():
                for event in batch:
                    if isinstance(event, JobStarted):
                        self._begin(time.perf_counter() - arrived)
                    elif isinstance(event, Drawn):
                        self._drawn.append(event)
                        self._record.notes |= {
                            "images": len(self._drawn),
                            "steps": sum(one.steps for one in self._drawn),
                        }
                    yield event
        finally:
            drawing.abort()

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._events()) as events:
            async for event in events:
                if isinstance(event, Drawn):
                    for chunk in self._shape.picture(event, self._drawn):
                        yield chunk
                        await asyncio.sleep(0)  # others have a turn
                elif chunk := self._written(event):
                    yield chunk
        yield DONE

    def _written(self, event: Event) -> bytes:
        match event:
            case Queued():
                self._state = b"queued, place %d" % event.place
                return self._comment()
            case JobStarted():
                self._state = b"drawing"
                return self._comment()
            case JobProgress():
                self._state = b"drawing image %d of %d, step %d of %d" % (
                    *(event.index + 1, self._job.n),
                    *(event.step, event.steps),
                )
                return self._shape.progress(event)
            case Preview():
                return self._preview(event)
        return b""

    def _preview(self, event: Preview) -> bytes:
        """Write a preview. Where a request wants but some, they are spread evenly over the steps."""
        n_before, n_most = self._previews[event.index], self._options.n_previews
        if n_most is not None:
            is_due = event.step * (n_most + 1) >= (n_before + 1) * event.steps
            if not is_due or n_before == n_most:
                return b""
        self._previews[event.index] += 1
        return self._shape.preview(event, n_before)

    def _begin(self, waited: float) -> None:
        self._record.notes["queue_ms"] = round(1e3 * waited, 1)
        self._hosted.metrics.waited(waited)

    def _comment(self) -> bytes:
        return b": " + self._state + b"\n\n"
