"""One request's passages, on their way to the worker, and their vectors on the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from llamabox.clients.inbox import Ending, Inbox
from llamabox.engine.events import Vector
from llamabox.engine.request import PromptPart, PromptText
from llamabox.errors import LlamaboxError
from llamabox.wire.text import Embed

MAX_AHEAD = 256
"""Passages that are sent before their vectors are back: more than a batch has, so that the worker never waits."""

PART = 32
"""Passages in one message, and the bytes of text from which on it takes no more. The worker reads on in between."""

PART_BYTES = 16 * 1024


class Embedding(Inbox[Vector]):
    """A request's vectors as they are made, in whatever order. Also an async iterator over its batches.

    The passages are sent as vectors come back, so what waits in the worker is bounded, and what comes back is bounded
    by what the consumer has taken. A passage that fails, or the worker's death, ends the whole.
    """

    def __init__(
        self,
        empty: Embed,
        prompts: Sequence[Sequence[PromptPart]],
        send: Callable[[Embed], None],
        leave: Callable[[Embedding, Ending], None],
        served: Callable[[Embed], None],
    ) -> None:
        """`empty` is what all messages have in common. `leave` is called once, when the worker has nothing more to say
        that matters; `served` with each message that was answered in full.
        """
        assert prompts, "an embedding of nothing would never end"
        super().__init__()
        self.request_id = empty.request_id
        self._empty = empty
        self._prompts = prompts
        self._send = send
        self._leave = leave
        self._served = served
        self._n_sent = 0
        self._n_taken = 0  # vectors, by the consumer
        self._n_made = 0
        self._parts: list[tuple[Embed, set[int]]] = []  # sent, and the places whose vectors are not here yet

    async def all(self) -> list[Vector]:
        """Every vector, in the order of the prompts. Raises what `batch` raises; a cancelled caller aborts it."""
        async with self:
            vectors = [one async for some in self for one in some]
        return sorted(vectors, key=lambda vector: vector.index)

    @property
    def in_flight(self) -> list[Embed]:
        """The messages that were sent and are not answered in full."""
        return [part for part, _ in self._parts]

    async def batch(self) -> list[Vector]:
        self._send_on()
        vectors = await super().batch()
        self._n_taken += len(vectors)
        return vectors

    def __aiter__(self) -> Embedding:
        return self

    async def __anext__(self) -> list[Vector]:
        if vectors := await self.batch():
            return vectors
        raise StopAsyncIteration

    def push(self, event: Vector) -> None:
        if self.is_closed:
            return
        super().push(event)
        self._n_made += 1
        for part, missing in self._parts:
            missing.discard(event.index)
            if not missing:
                self._served(part)
        self._parts = [entry for entry in self._parts if entry[1]]
        if self._n_made == len(self._prompts):
            self._complete()

    def _on_end(self, ending: Ending) -> None:
        self._leave(self, ending)

    def _send_on(self) -> None:
        """Send as many passages as may be ahead of the consumer."""
        try:
            while not self.is_closed and self._n_sent < min(len(self._prompts), self._n_taken + MAX_AHEAD):
                self._send_part()
        except LlamaboxError as error:
            self.fail(error)

    def _send_part(self) -> None:
        prompts: list[PromptText] = []
        n_bytes = 0
        for prompt in self._prompts[self._n_sent : self._n_sent + PART]:
            prompts.append(list(prompt))
            n_bytes += sum(map(_size, prompt))
            if n_bytes > PART_BYTES:
                break
        n_left = len(self._prompts) - self._n_made
        part = replace(self._empty, first=self._n_sent, n_left=n_left, prompts=prompts)
        self._send(part)
        self._parts.append((part, set(range(self._n_sent, self._n_sent + len(prompts)))))
        self._n_sent += len(prompts)


def _size(part: PromptPart) -> int:
    """About the bytes that a part takes in a message."""
    if isinstance(part, str):
        return len(part)
    return 4 if isinstance(part, int) else part.n_bytes
