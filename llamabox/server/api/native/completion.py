"""POST /completion and /completions: llama.cpp's native route."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import orjson
from starlette.responses import Response

from llamabox.engine.events import Delta, Progress, Started
from llamabox.engine.request import PromptText
from llamabox.server.api.native.writer import PartialChunks, final_object, progress_chunk, select_fields
from llamabox.server.fields.prompt import parse_prompts
from llamabox.server.fields.request import Dialect, Options
from llamabox.server.generation.choice import Choice
from llamabox.server.generation.media import read_media
from llamabox.server.generation.reply import TextReply, options_of
from llamabox.server.generation.timings import rate_header
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.http.json import JsonArray, JsonResponse, dump_line, dumps
from llamabox.server.http.threads import n_values, off_loop


async def completion(exchange: Exchange) -> Response:
    """One prompt gives an object; a list of prompts, or n > 1, gives an array. Streams have no [DONE]."""
    n = n_values(exchange.body.get("prompt"))
    raw, is_list = await off_loop(n, parse_prompts, exchange.body, exchange.info, exchange.hosted.media_marker)
    options = options_of(exchange, Dialect.NATIVE)
    return await answer(exchange, await read_media(exchange, raw), options, is_list=is_list)


async def answer(
    exchange: Exchange, prompts: list[PromptText], options: Options, *, is_list: bool, shown: str | None = None
) -> Response:
    """Run the prompts and answer in llama.cpp's form. `shown`: their prompt, where the worker does not tell it."""
    reply = TextReply(exchange, prompts, options)
    finals = Finals(reply, options, shown)
    if options.stream:
        return reply.stream(NativeShape(finals, options))
    choices = await reply.gather()
    headers = rate_header(choices[0].finished.timings)

    async def items() -> AsyncIterator[bytes]:
        for choice in choices:
            yield await reply.build(partial(finals.whole, choice))

    if is_list or options.params.n > 1:
        return JsonArray(items(), headers)
    return await reply.build(lambda: JsonResponse(orjson.Fragment(finals.whole(choices[0])), headers=headers))


class Finals:
    """The last word on each sequence of one request, as JSON."""

    def __init__(self, reply: TextReply, options: Options, shown: str | None) -> None:
        self._reply = reply
        self._options = options
        self._shown = shown

    def whole(self, choice: Choice) -> bytes:
        """The final object of a plain reply."""
        return dumps(self._selected(choice, streamed=False))

    def event(self, choice: Choice) -> bytes:
        """The final object of a stream."""
        return b"data: " + dump_line(self._selected(choice, streamed=True)) + b"\n\n"

    def _selected(self, choice: Choice, *, streamed: bool) -> dict[str, Any]:
        result = final_object(choice, self._options, self._reply.settings, streamed=streamed)
        if self._shown is not None:
            result["prompt"] = self._shown
        return select_fields(result, self._options.response_fields)


class NativeShape:
    """Chunks as they come, each sequence ending in its full final object with empty content."""

    def __init__(self, finals: Finals, options: Options) -> None:
        self._finals = finals
        self._options = options
        self._partial: dict[int, PartialChunks] = {}

    def progress(self, choice: Choice, event: Progress) -> bytes:
        return progress_chunk(choice.index, event, self._options)

    def started(self, choice: Choice, event: Started) -> bytes:
        self._partial[choice.index] = PartialChunks(choice.index, event, self._options)
        return b""

    def text(self, choice: Choice, event: Delta) -> bytes:
        return self._partial[choice.index].chunk(event)

    def finished(self, choice: Choice, *, is_last: bool) -> bytes:
        return self._finals.event(choice)

    def closing(self) -> bytes:
        return b""
