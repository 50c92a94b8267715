"""Replies of POST /v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from llamabox.chat.parts import Part
from llamabox.engine.events import Delta, PrefillStart, Progress, PromptProbs, Started, TokenProbs
from llamabox.server.api.openai.chunks import Chunks
from llamabox.server.api.openai.completions.echo import Echo
from llamabox.server.api.openai.envelope import Envelope, whole_response
from llamabox.server.fields.request import Options
from llamabox.server.generation.choice import Choice
from llamabox.server.generation.logprobs import TokenEntry, entries_of, token_text, whole_logprobs
from llamabox.server.generation.reply import TextReply
from llamabox.server.generation.writer import text_of
from llamabox.wire.text_config import ModelInfo

KIND = "text_completion"
NO_TEXT = {"text": ""}


class CompletionWriter:
    """Choices with texts."""

    def __init__(self, options: Options, reply: TextReply, info: ModelInfo, echoes: Sequence[str] = ()) -> None:
        """`echoes` are the prompts where texts are to begin with them."""
        envelope = Envelope.new("cmpl-", options.model, info)
        self._options = options
        self._reply = reply
        self._head = envelope.fields(KIND)
        self._echoes = [Echo(text) for text in echoes for _ in range(options.params.n)]
        starts = [len(text) for text in echoes for _ in range(options.params.n)]
        self._starts = starts
        self._chunks = Chunks(
            envelope.fields(KIND), options, reply, around=(b'"text":', b""), show=arrays, starts=starts
        )

    def begun(self, choice: Choice, event: PrefillStart) -> bytes:
        return b""

    def progress(self, choice: Choice, event: Progress) -> bytes:
        return self._chunks.first(choice.index, NO_TEXT, event)

    def prompt(self, choice: Choice, event: PromptProbs) -> bytes:
        """The prompt's next tokens."""
        text, found = self._echoes[choice.index].say(event.probs)
        return self._chunks.first(choice.index, {"text": text, "logprobs": arrays(found, self._options)})

    def started(self, choice: Choice, event: Started) -> bytes:
        rest = self._echoes[choice.index].rest() if self._echoes else ""
        return self._chunks.first(choice.index, {"text": rest}) if rest else b""

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
        text, logprobs = text_of(choice.parts), None
        if not self._echoes:
            logprobs = whole_logprobs(arrays, choice, self._options)
        else:
            echo = self._echoes[choice.index]
            before, found = echo.say(choice.prompt_probs)
            text = before + echo.rest() + text
            if self._options.n_top is not None:
                logprobs = arrays(found + entries_of(choice, self._starts[choice.index]), self._options)
        return {
            "index": choice.index,
            "finish_reason": choice.finished.reason,
            "logprobs": logprobs,
            "text": text,
        }


def arrays(found: Sequence[TokenEntry], options: Options) -> dict[str, Any]:
    """A choice's `logprobs`: OpenAI's legacy arrays."""
    return {
        "tokens": [token_text(one.probs.chosen) for one in found],
        "token_logprobs": [one.probs.chosen.logprob if one.follows else None for one in found],
        "top_logprobs": [_by_text(one.probs, options.n_top) if one.follows else None for one in found],
        "text_offset": [one.offset for one in found],
    }


def _by_text(probs: TokenProbs, n_top: int | None) -> dict[str, float]:
    """The likeliest tokens by their text, and always the sampled one. Of two with the same text the likelier counts."""
    found: dict[str, float] = {}
    for likely in (*probs.top[:n_top], probs.chosen):
        found.setdefault(token_text(likely), likely.logprob)
    return found
