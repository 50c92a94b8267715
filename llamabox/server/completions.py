"""POST /completion and /completions: llama.cpp's native route."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from llamabox.engine.events import Delta, Progress, Started
from llamabox.server.endpoint import Exchange
from llamabox.server.params import Dialect, Options, parse_options
from llamabox.server.prompt_text import prompt_texts
from llamabox.server.prompts import Prompt, parse_prompts
from llamabox.server.reply import Reply
from llamabox.server.responses.choice import Choice
from llamabox.server.responses.json import JsonResponse, dumps
from llamabox.server.responses.native import PartialChunks, final_object, progress_chunk, select_fields
from llamabox.server.responses.timings import rate_header
from llamabox.workers.text_config import ModelInfo


async def completion(exchange: Exchange) -> Response:
    """One prompt gives an object; a list of prompts, or n > 1, gives an array. Streams have no [DONE]."""
    prompts, is_list = parse_prompts(exchange.body, exchange.info)
    options = parse_options(exchange.body, exchange.services.config, exchange.info, Dialect.NATIVE)
    texts = await prompt_texts(exchange.services.client, exchange.info, prompts)
    return await answer(exchange, prompts, texts, options, is_list=is_list)


async def answer(
    exchange: Exchange, prompts: list[Prompt], texts: list[str], options: Options, *, is_list: bool
) -> Response:
    """What becomes of `prompts`, in llama.cpp's form. `texts` is what the replies show of them."""
    reply = Reply(exchange, prompts, options)
    if options.stream:
        return reply.stream(NativeShape(exchange.info, options, texts))
    choices = await reply.gather()

    def make() -> Response:
        finals = [_final(choice, options, exchange.info, texts, streamed=False) for choice in choices]
        content = finals if is_list or options.params.n > 1 else finals[0]
        return JsonResponse(content, headers=rate_header(choices[0].finished.timings))

    return await reply.build(make)


class NativeShape:
    """Chunks as they come, each sequence ending in its full final object with empty content."""

    def __init__(self, info: ModelInfo, options: Options, texts: list[str]) -> None:
        self._info = info
        self._options = options
        self._texts = texts
        self._partial: dict[int, PartialChunks] = {}

    def progress(self, choice: Choice, event: Progress) -> bytes:
        return progress_chunk(choice.index, event, self._options)

    def started(self, choice: Choice, event: Started) -> bytes:
        self._partial[choice.index] = PartialChunks(choice.index, event, self._options)
        return b""

    def text(self, choice: Choice, event: Delta) -> bytes:
        return self._partial[choice.index].chunk(event)

    def finished(self, choice: Choice, *, is_last: bool) -> bytes:
        final = _final(choice, self._options, self._info, self._texts, streamed=True)
        return b"data: " + dumps(final) + b"\n\n"

    def closing(self) -> bytes:
        return b""


def _final(choice: Choice, options: Options, info: ModelInfo, texts: list[str], *, streamed: bool) -> dict[str, Any]:
    prompt = texts[choice.index // options.params.n]
    result = final_object(choice, options, info, prompt=prompt, streamed=streamed)
    return select_fields(result, options.response_fields)
