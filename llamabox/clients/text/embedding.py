"""One request's passages, on their way to the worker, and their vectors on the way back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType

from llamabox.engine.events import Vector
from llamabox.errors import LlamaboxError
from llamabox.wire.text import Embed

MAX_AHEAD = 256
"""Passages that are sent before their vectors are back: more than a batch has, so that the worker never waits."""

PART = 32
"""Passages in one message, and the bytes of text from which on it takes no more. The worker reads on in between."""

PART_BYTES = 16 * 1024


class Embedding:
    """An async iterator over the vectors as they are made, in whatever order, a list of those at hand at a time.

    The passages are sent as vectors come back, so what waits in the worker is bounded, and what comes back is bounded
    by what the consumer has taken. Belongs to the event loop; one consumer. As a context manager it aborts what has not
    ended by the exit. A passage that fails, or the worker's death, is raised, and ends it.
    """

    def __init__(
        self,
        empty: Embed,
        prompts: Sequence[Sequence[str | int]],
        send: Callable[[Embed], None],
        leave: Callable[[Embedding, bool], None],
        served: Callable[[Embed], None],
    ) -> None:
        """`empty` is what all messages have in common. `leave(self, completed)` is called once, when the worker has
        nothing more to say that matters; `served` with each message that was answered in full.
        """
        assert prompts, "an embedding of nothing would never end"
        self.request_id = empty.request_id
        self._empty = empty
        self._prompts = prompts
        self._send = send
        self._leave = leave
        self._served = served
        self._n_sent = 0
        self._n_back = 0  # of those, and taken by the consumer
        self._n_made = 0
        self._ready: list[Vector] = []
        self._parts: list[tuple[Embed, set[int]]] = []  # sent, and the places whose vectors are not here yet
        self._waiter: asyncio.Future[None] | None = None
        self._error: LlamaboxError | None = None
        self._closed = False

    async def all(self) -> list[Vector]:
        """Every vector, in the order of the prompts. Raises what iterating raises; a cancelled caller aborts it."""
        async with self:
            vectors = [one async for some in self for one in some]
        return sorted(vectors, key=lambda vector: vector.index)

    @property
    def in_flight(self) -> list[Embed]:
        """What was sent and is not answered in full."""
        return [part for part, _ in self._parts]

    def __aiter__(self) -> Embedding:
        return self

    async def __anext__(self) -> list[Vector]:
        if self._error is None:
            self._send_on()
        while not self._ready and not self._closed:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._error is not None:
            raise self._error
        if not self._ready:
            raise StopAsyncIteration
        ready, self._ready = self._ready, []
        self._n_back += len(ready)
        return ready

    async def __aenter__(self) -> Embedding:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self.abort()

    def abort(self) -> None:
        """End it here and in the worker. Idempotent, and nothing after a complete end."""
        if not self._closed:
            self._close(completed=False)

    def push(self, vector: Vector) -> None:
        """For the client: one more vector."""
        if self._closed:
            return
        self._ready.append(vector)
        self._n_made += 1
        for part, missing in self._parts:
            missing.discard(vector.index)
            if not missing:
                self._served(part)
        self._parts = [entry for entry in self._parts if entry[1]]
        if self._n_made == len(self._prompts):
            self._close(completed=True)
        else:
            self._wake()

    def fail(self, error: LlamaboxError) -> None:
        """For the client: no more will come, for this reason. Nothing if it has ended."""
        if not self._closed:
            self._error = error
            self._close(completed=False)

    def _send_on(self) -> None:
        """Send as much as may be ahead of the consumer."""
        try:
            while self._n_sent < len(self._prompts) and self._n_sent - self._n_back < MAX_AHEAD:
                self._send_part()
        except LlamaboxError as error:
            self.fail(error)

    def _send_part(self) -> None:
        prompts: list[list[str | int]] = []
        n_bytes = 0
        for prompt in self._prompts[self._n_sent : self._n_sent + PART]:
            prompts.append(list(prompt))
            n_bytes += sum(len(piece) if isinstance(piece, str) else 4 for piece in prompt)
            if n_bytes > PART_BYTES:
                break
        n_left = len(self._prompts) - self._n_made
        part = replace(self._empty, first=self._n_sent, n_left=n_left, prompts=prompts)
        self._send(part)
        self._parts.append((part, set(range(self._n_sent, self._n_sent + len(prompts)))))
        self._n_sent += len(prompts)

    def _close(self, *, completed: bool) -> None:
        self._closed = True
        self._leave(self, completed)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
