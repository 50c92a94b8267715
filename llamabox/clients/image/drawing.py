"""One image job's events, on their way from the worker to whoever writes the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llamabox.clients.text.generation import MAX_LAG
from llamabox.errors import LlamaboxError
from llamabox.imaging.events import Event, Failed, Finished, Preview, Progress, Queued
from llamabox.imaging.job import ImageJob
from llamabox.wire.common import read_error

MAX_LAG_BYTES = 16 << 20
"""Bytes of previews that may wait for a slow consumer."""


class Drawing:
    """The events of a job. A Failed, or the worker's death, is raised as its exception once those before it are read.

    Belongs to the event loop; one consumer. What waits for a slow one is bounded: its oldest Progress and Preview
    events are dropped, which later ones replace. Images are not.
    """

    __slots__ = ("_abandon", "_error", "_events", "_max_lag", "_n_bytes", "_news", "_place", "is_closed", "job")

    def __init__(self, job: ImageJob, abandon: Callable[[Drawing], None], max_lag: int = MAX_LAG) -> None:
        """`abandon(self)` is called once, if nobody wants the rest of a job that has not ended."""
        self.job = job
        self.is_closed = False  # no further event is taken
        self._abandon = abandon
        self._max_lag = max_lag
        self._events: list[Event] = []
        self._n_bytes = 0  # of previews in them
        self._news = asyncio.Event()
        self._error: LlamaboxError | None = None
        self._place = 0  # in the queue, as last told

    async def batch(self) -> list[Event]:
        """The events there are, waited for; [] is the end. Raises the error that ended the job."""
        while not self._events and not self.is_closed:
            self._news.clear()
            await self._news.wait()
        if self._events:
            events, self._events = self._events, []
            self._n_bytes = 0
            return events
        if self._error is not None:
            raise self._error
        return []

    def abort(self) -> None:
        """Nobody wants the rest: dropped where it waits, and stopped in the worker. Idempotent, does not wait."""
        if not self.is_closed:
            self._events.clear()
            self._close()
            self._abandon(self)

    def push(self, event: Event) -> None:
        """For the client: one more event, Finished and Failed being the last."""
        if self.is_closed:
            return
        if isinstance(event, Failed):
            self.fail(read_error(event.error))
            return
        self._events.append(event)
        if isinstance(event, Preview):
            self._n_bytes += len(event.png)
        self._drop_stale()
        if isinstance(event, Finished):
            self._close()
        else:
            self._news.set()

    def queued(self, place: int) -> None:
        """For the client: it waits at this place, 1 being next. What was told already is not told again."""
        if place != self._place and not self.is_closed:
            self._place = place
            self._events[:] = [event for event in self._events if not isinstance(event, Queued)]
            self.push(Queued(self.job.request_id, place))

    def fail(self, error: LlamaboxError) -> None:
        """For the client: no more will come, for this reason. Nothing if it has ended."""
        if not self.is_closed:
            self._error = error
            self._close()

    def _drop_stale(self) -> None:
        while self._n_bytes > MAX_LAG_BYTES and self._drop_oldest(Preview):
            pass
        while len(self._events) > self._max_lag and self._drop_oldest(Progress, Preview):
            pass

    def _drop_oldest(self, *kinds: type[Event]) -> bool:
        """Whether there was one to drop. The newest event of all stays."""
        for i, event in enumerate(self._events[:-1]):
            if isinstance(event, kinds):
                del self._events[i]
                self._n_bytes -= len(event.png) if isinstance(event, Preview) else 0
                return True
        return False

    def _close(self) -> None:
        self.is_closed = True
        self._news.set()
