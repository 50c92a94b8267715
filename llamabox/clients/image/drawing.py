"""One image job's events, on their way from the worker to whoever writes the answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

from llamabox.clients.inbox import MAX_LAG, Ending, Inbox
from llamabox.imaging.events import Event, JobFailed, JobFinished, JobProgress, Preview, Queued
from llamabox.imaging.job import ImageJob
from llamabox.wire.common import read_error

MAX_LAG_BYTES = 16 << 20
"""Bytes of previews that may wait for a slow consumer."""


class Drawing(Inbox[Event]):
    """A job's events. Of those that wait for a slow consumer, later JobProgress and Preview replace the oldest.

    Images are never dropped.
    """

    __slots__ = ("_abandon", "_max_lag", "_place", "job")

    def __init__(self, job: ImageJob, abandon: Callable[[Drawing], None], max_lag: int = MAX_LAG) -> None:
        """`abandon(self)` is called once, if the consumer wants no more of a job that has not ended."""
        super().__init__()
        self.job = job
        self._abandon = abandon
        self._max_lag = max_lag
        self._place = 0  # in the queue, as last told

    def push(self, event: Event) -> None:
        if isinstance(event, JobFailed):
            self.fail(read_error(event.error))
            return
        super().push(event)
        self._drop_stale()
        if isinstance(event, JobFinished) and not self.is_closed:
            self._complete()

    def queued(self, place: int) -> None:
        """For the client: the job waits at this place, 1 being next. A place is told once."""
        if place != self._place and not self.is_closed:
            self._place = place
            self._events = deque(event for event in self._events if not isinstance(event, Queued))
            self.push(Queued(self.job.request_id, place))

    def _on_end(self, ending: Ending) -> None:
        if ending is Ending.ABORTED:
            self._abandon(self)

    def _weigh(self, event: Event) -> int:
        """Bytes of previews."""
        return len(event.png) if isinstance(event, Preview) else 0

    def _drop_stale(self) -> None:
        while self._weight > MAX_LAG_BYTES and self._drop_oldest(Preview):
            pass
        while len(self._events) > self._max_lag and self._drop_oldest(JobProgress, Preview):
            pass

    def _drop_oldest(self, *kinds: type[Event]) -> bool:
        """Drop the oldest event of these kinds, never the newest of all. Returns False where there is none."""
        for i, event in enumerate(islice(self._events, len(self._events) - 1)):
            if isinstance(event, kinds):
                del self._events[i]
                self._weight -= self._weigh(event)
                return True
        return False
