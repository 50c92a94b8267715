"""Replies of POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from llamabox.chat.parts import Part
from llamabox.engine.events import Delta, Progress, Started
from llamabox.server.api.openai.chunks import Chunks
from llamabox.server.api.openai.envelope import Envelope, whole_response
from llamabox.server.fields.request import Options
from llamabox.server.generation.choice import Choice
from llamabox.server.generation.logprobs import TokenEntry, entries, whole_logprobs
from llamabox.server.generation.reply import TextReply
from llamabox.server.generation.writer import text_of
from llamabox.wire.text_config import ModelInfo

EMPTY = {"delta": {"role": "assistant", "content": None}}
"""The content of a choice that has said nothing yet."""


class ChatWriter:
    """Choices with messages, or with deltas of them."""

    def __init__(self, options: Options, reply: TextReply, info: ModelInfo) -> None:
        envelope = Envelope.new("chatcmpl-", options.model, info)
        self._options = options
        self._reply = reply
        self._head = envelope.fields("chat.completion")
        self._chunks = Chunks(
            envelope.fields("chat.completion.chunk"),
            options,
            reply,
            around=(b'"delta":{"content":', b"}"),
            show=token_objects,
        )

    def progress(self, choice: Choice, event: Progress) -> bytes:
        return self._chunks.first(choice.index, EMPTY, event)

    def started(self, choice: Choice, event: Started) -> bytes:
        return self._chunks.first(choice.index, EMPTY)

    def parts(self, choice: Choice, parts: Sequence[Part], event: Delta) -> bytes:
        return self._chunks.text(choice.index, text_of(parts), event)

    def finished(self, choice: Choice, *, is_last: bool) -> bytes:
        return self._chunks.end(choice, {"delta": {}}, is_last=is_last)

    def closing(self) -> bytes:
        return self._chunks.closing()

    async def whole(self, choices: Sequence[Choice]) -> Response:
        def make() -> Response:
            written = [self._choice(choice) for choice in choices]
            return whole_response(self._head, written, choices, self._options, self._reply)

        return await self._reply.build(make)

    def _choice(self, choice: Choice) -> dict[str, Any]:
        return {
            "index": choice.index,
            "finish_reason": choice.finished.reason,
            "logprobs": whole_logprobs(token_objects, choice, self._options),
            "message": {"role": "assistant", "content": text_of(choice.parts)},
        }


def token_objects(found: Sequence[TokenEntry], options: Options) -> dict[str, Any]:
    """A choice's `logprobs`: an object for each token."""
    return {"content": entries([one.probs for one in found], options)}
