"""A request's events, on their way from the worker to whoever writes the answer."""

from __future__ import annotations

import asyncio
import enum
from abc import ABC, abstractmethod
from collections import deque
from types import TracebackType
from typing import Any, Generic, TypeVar

from llamabox.errors import LlamaboxError

E = TypeVar("E")
Self = TypeVar("Self", bound="Inbox[Any]")

MAX_LAG = 4096
"""Events that may wait for a slow consumer. A step makes one per sequence, so this is minutes of a stream."""


class Ending(enum.Enum):
    """The reason for which an inbox takes no further event."""

    COMPLETED = "completed"  # the worker has said everything
    FAILED = "failed"  # an error is raised for the consumer
    ABORTED = "aborted"  # the consumer wants no more


class Inbox(ABC, Generic[E]):
    """Events for one consumer, kept until it takes them. Belongs to the event loop.

    The client pushes events and completes or fails the inbox; a kind of inbox bounds what waits, by `_weight` too. The
    consumer takes batches: an error is raised once the events before it are taken. As a context manager the inbox
    aborts what has not ended by the exit.
    """

    __slots__ = ("_error", "_events", "_waiter", "_weight", "is_closed")

    def __init__(self) -> None:
        self.is_closed = False  # no further event is taken
        self._events: deque[E] = deque()
        self._weight = 0  # of all events that wait
        self._error: LlamaboxError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def batch(self) -> list[E]:
        """Wait for events and take all: usually one step's. [] is the end. Raises what the inbox failed with."""
        while not self._events and not self.is_closed:
            assert self._waiter is None, "an inbox has one consumer"
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._events:
            events = list(self._events)
            self._clear()
            return events
        if self._error is not None:
            raise self._error
        return []

    def push(self, event: E) -> None:
        """For the client: one more event. Those of a step cost one wake-up: the consumer runs when all are pushed."""
        if not self.is_closed:
            self._events.append(event)
            self._weight += self._weigh(event)
            self._wake()

    def fail(self, error: LlamaboxError) -> None:
        """For the client: no more will come, for this reason. Nothing if the inbox has ended."""
        if not self.is_closed:
            self._error = error
            self._close(Ending.FAILED)

    def abort(self) -> None:
        """For the consumer: drop what waits, and have the worker stop. Nothing if the inbox has ended."""
        if not self.is_closed:
            self._clear()
            self._close(Ending.ABORTED)

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self.abort()

    @abstractmethod
    def _on_end(self, ending: Ending) -> None:
        """Called once, when the inbox has closed."""

    def _weigh(self, event: E) -> int:
        """The part of `_weight` that an event makes up."""
        return 0

    def _complete(self) -> None:
        self._close(Ending.COMPLETED)

    def _clear(self) -> None:
        self._events.clear()
        self._weight = 0

    def _close(self, ending: Ending) -> None:
        self.is_closed = True
        self._on_end(ending)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None
