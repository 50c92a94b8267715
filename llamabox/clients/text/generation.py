"""One request's events, on their way from the worker to whoever writes the answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType

from llamabox.engine.events import Delta, Event, Failed, Finished, PrefillStart
from llamabox.errors import ClientTooSlow, LlamaboxError
from llamabox.wire.common import read_error
from llamabox.wire.text import Submit

MAX_LAG = 4096
"""Events that may wait for a slow consumer. A step makes one per sequence, so this is minutes of a stream."""

MAX_LAG_PROBS = 1 << 19
"""Log-probabilities that may wait in them, at about 130 bytes each: one event may bring the whole vocabulary's."""


class Generation:
    """An async iterator over a request's events; it ends after the last of its n sequences.

    A Failed event, or the worker's death, is raised as its exception once the events before it are consumed.
    Belongs to the event loop; one consumer. As a context manager it aborts what has not ended by the exit.
    """

    __slots__ = (
        *("_closed", "_error", "_events", "_leave", "_max_lag", "_n_probs", "_n_running", "_waiter"),
        *("has_begun", "submit"),
    )

    def __init__(self, submit: Submit, leave: Callable[[Generation, bool], None], max_lag: int = MAX_LAG) -> None:
        """`leave(self, completed)` is called once, when the worker has nothing more to say that matters."""
        self.submit = submit
        self.has_begun = False  # the worker has told something of it that another one would tell again
        self._leave = leave
        self._max_lag = max_lag
        self._events: deque[Event] = deque()
        self._n_probs = 0  # in the events that wait
        self._waiter: asyncio.Future[None] | None = None
        self._n_running = submit.params.n
        self._error: LlamaboxError | None = None
        self._closed = False  # no further event is taken

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> Event:
        await self._available()
        if self._events:
            event = self._events.popleft()
            self._n_probs -= _n_probs(event)
            return event
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def batch(self) -> list[Event]:
        """All events there are, waited for: usually those of one step. [] is the end. Raises as iterating does."""
        await self._available()
        if self._events:
            events = list(self._events)
            self._forget()
            return events
        if self._error is not None:
            raise self._error
        return []

    def abort(self) -> None:
        """Ends it here and in the worker. Idempotent, and nothing after a complete end."""
        if not self._closed:
            self._forget()
            self._close(completed=False)

    async def __aenter__(self) -> Generation:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self.abort()

    def push(self, event: Event) -> None:
        """For the client: one more event. Those of a step cost one wake-up: the consumer runs when all are pushed."""
        if self._closed:
            return
        self.has_begun = self.has_begun or not isinstance(event, PrefillStart)
        if isinstance(event, Failed):
            self._error = read_error(event.error)
            self._close(completed=False)
            return
        if len(self._events) >= self._max_lag or self._n_probs > MAX_LAG_PROBS:
            n_waiting = len(self._events)
            self._forget()
            self.fail(ClientTooSlow(f"the client is too slow: {n_waiting} events were waiting for it"))
            return
        self._events.append(event)
        self._n_probs += _n_probs(event)
        if isinstance(event, Finished):
            self._n_running -= 1
        if self._n_running:
            self._wake()
        else:
            self._close(completed=True)

    def fail(self, error: LlamaboxError) -> None:
        """For the client: no more will come, for this reason. Nothing if it has ended."""
        if not self._closed:
            self._error = error
            self._close(completed=False)

    def _forget(self) -> None:
        self._events.clear()
        self._n_probs = 0

    def _close(self, *, completed: bool) -> None:
        self._closed = True
        self._leave(self, completed)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None

    async def _available(self) -> None:
        """Returns when there is an event or an end."""
        while not self._events and not self._closed:
            assert self._waiter is None, "a generation has one consumer"
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None


def _n_probs(event: Event) -> int:
    """Log-probabilities in it, one a token aside."""
    return sum(len(one.top) for one in event.probs) if isinstance(event, Delta) and event.probs else 0
