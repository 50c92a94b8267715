"""Replies of POST /v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from llamabox.chat.parts import Part
from llamabox.engine.events import Delta, PrefillStart, Progress, Started, TokenProbs
from llamabox.server.api.openai.chunks import Chunks
from llamabox.server.api.openai.envelope import Envelope, whole_response
from llamabox.server.fields.request import Options
from llamabox.server.generation.choice import Choice
from llamabox.server.generation.logprobs import TokenEntry, token_text, whole_logprobs
from llamabox.server.generation.reply import TextReply
from llamabox.server.generation.writer import text_of
from llamabox.wire.text_config import ModelInfo

KIND = "text_completion"
NO_TEXT = {"text": ""}


class CompletionWriter:
    """Choices with texts."""

    def __init__(self, options: Options, reply: TextReply, info: ModelInfo) -> None:
        envelope = Envelope.new("cmpl-", options.model, info)
        self._options = options
        self._reply = reply
        self._head = envelope.fields(KIND)
        self._chunks = Chunks(envelope.fields(KIND), options, reply, around=(b'"text":', b""), show=arrays)

    def begun(self, choice: Choice, event: PrefillStart) -> bytes:
        return b""

    def progress(self, choice: Choice, event: Progress) -> bytes:
        return self._chunks.first(choice.index, NO_TEXT, event)

    def started(self, choice: Choice, event: Started) -> bytes:
        return b""

    def parts(self, choice: Choice, parts: Sequence[Part], event: Delta) -> bytes:
        return self._chunks.text(choice.index, text_of(parts), event)

    def finished(self, choice: Choice, *, is_last: bool) -> bytes:
        return self._chunks.end(choice, NO_TEXT, choice.finished.reason, is_last=is_last)

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
            "logprobs": whole_logprobs(arrays, choice, self._options),
            "text": text_of(choice.parts),
        }


def arrays(found: Sequence[TokenEntry], options: Options) -> dict[str, Any]:
    """A choice's `logprobs`: OpenAI's legacy arrays."""
    return {
        "tokens": [token_text(one.probs.chosen) for one in found],
        "token_logprobs": [one.probs.chosen.logprob for one in found],
        "top_logprobs": [_by_text(one.probs, options.n_top) for one in found],
        "text_offset": [one.offset for one in found],
    }


def _by_text(probs: TokenProbs, n_top: int | None) -> dict[str, float]:
    """The likeliest tokens by their text, and always the sampled one. Of two with the same text the likelier counts."""
    found: dict[str, float] = {}
    for likely in (*probs.top[:n_top], probs.chosen):
        found.setdefault(token_text(likely), likely.logprob)
    return found
