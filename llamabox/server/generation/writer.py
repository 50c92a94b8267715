"""How an API's words are made of an answer: the face that each API's writer has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from starlette.responses import Response

from llamabox.chat.parts import Part, Text
from llamabox.engine.events import Delta, PrefillStart, Progress, Started
from llamabox.server.generation.choice import Choice


class Writer(Protocol):
    """Writes one request's answer, as a stream or whole. Empty bytes: nothing to say."""

    def begun(self, choice: Choice, event: PrefillStart) -> bytes:
        """The prompt is about to be computed, which takes more than a step. Not told where `progress` is."""

    def progress(self, choice: Choice, event: Progress) -> bytes:
        """A stretch of the prompt is computed."""

    def started(self, choice: Choice, event: Started) -> bytes:
        """The prompt is computed."""

    def parts(self, choice: Choice, parts: Sequence[Part], event: Delta) -> bytes:
        """More of the answer, or nothing that can be said yet. `event` has its tokens and what else came with it."""

    def finished(self, choice: Choice, *, is_last: bool) -> bytes:
        """The answer of one sequence is over; `is_last`: of all."""

    def closing(self) -> bytes:
        """After the last sequence has finished."""

    async def whole(self, choices: Sequence[Choice]) -> Response:
        """The plain reply, once all sequences have finished."""


def text_of(parts: Sequence[Part]) -> str:
    """What is said to the user."""
    if len(parts) == 1 and isinstance(part := parts[0], Text):
        return part.text
    return "".join(part.text for part in parts if isinstance(part, Text))
