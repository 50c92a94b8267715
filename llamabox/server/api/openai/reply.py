"""The answer of /v1/chat/completions and /v1/completions once they have their prompts."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from llamabox.engine.events import Delta, Progress, Started
from llamabox.engine.request import PromptText
from llamabox.server.api.native.writer import final_object
from llamabox.server.api.openai.writer import DONE, Chunks, Envelope, usage_object, whole_reply
from llamabox.server.fields.request import Dialect, Options
from llamabox.server.generation.choice import Choice
from llamabox.server.generation.reply import TextReply
from llamabox.server.generation.timings import rate_header, timings_object
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.http.json import JsonResponse


async def openai_reply(exchange: Exchange, prompts: list[PromptText], options: Options, dialect: Dialect) -> Response:
    """Runs the prompts and answers, streamed or whole."""
    envelope = Envelope.new(dialect, options, exchange.info)
    reply = TextReply(exchange, prompts, options)
    if options.stream:
        return reply.stream(OpenAIShape(envelope, options, reply))
    choices = await reply.gather()

    def make() -> Response:
        content = whole_reply(envelope, choices, options)
        if options.verbose:
            content["__verbose"] = final_object(choices[0], options, reply.settings, streamed=False)
        return JsonResponse(content, headers=rate_header(choices[0].finished.timings))

    return await reply.build(make)


class OpenAIShape:
    """Chunks of either route, with exactly one [DONE]. Where usage goes: docs/api.md, Usage."""

    def __init__(self, envelope: Envelope, options: Options, reply: TextReply) -> None:
        self._chunks = Chunks(envelope, options, len(reply.choices))
        self._is_chat = envelope.dialect is Dialect.CHAT
        self._options = options
        self._reply = reply
        self._choices = reply.choices

    def progress(self, choice: Choice, event: Progress) -> bytes:
        return self._chunks.progress(choice.index, event)

    def started(self, choice: Choice, event: Started) -> bytes:
        return self._chunks.role(choice.index) if self._is_chat else b""

    def text(self, choice: Choice, event: Delta) -> bytes:
        return self._chunks.text(choice.index, event)

    def finished(self, choice: Choice, *, is_last: bool) -> bytes:
        extra: dict[str, Any] = {}
        if is_last and not self._options.include_usage:
            extra = self._totals(with_usage=self._options.include_usage is None)
        if self._options.verbose:
            extra["__verbose"] = final_object(choice, self._options, self._reply.settings, streamed=True)
        return self._chunks.end(choice, extra)

    def closing(self) -> bytes:
        if self._options.include_usage:
            return self._chunks.usage(self._totals(with_usage=True)) + DONE
        return DONE

    def _totals(self, *, with_usage: bool) -> dict[str, Any]:
        totals: dict[str, Any] = {"timings": timings_object(self._choices[0].finished.timings)}
        if with_usage:
            totals["usage"] = usage_object(self._choices, self._options)
        return totals
