"""Replies of /completion: llama-box's keys and llama-server's (docs/api.md, Native completion)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from starlette.responses import Response

from llamabox.chat.parts import Part
from llamabox.engine.events import Delta, PrefillStart, Progress, Started, StopType
from llamabox.server.api.native.fields import ResponseField
from llamabox.server.fields.request import Options
from llamabox.server.generation.choice import Choice
from llamabox.server.generation.logprobs import entries, entries_of
from llamabox.server.generation.reply import TextReply
from llamabox.server.generation.timings import progress_object, rate_header, timings_object
from llamabox.server.generation.writer import text_of
from llamabox.server.http.json import JsonArray, JsonResponse, dump_line, dump_text, dumps


def final_object(choice: Choice, options: Options, settings: dict[str, Any], *, streamed: bool) -> dict[str, Any]:
    """The last word on one sequence. In a stream the text went before, so `content` and `tokens` are empty.

    `settings` are the request's, of settings_object.
    """
    finished = choice.finished
    result = {
        "index": choice.index,
        "content": "" if streamed else text_of(choice.parts),
        "tokens": choice.tokens if options.return_tokens and not streamed else [],
        "id_slot": finished.id_slot,
        "stop": True,
        "model": options.model,
        "tokens_predicted": finished.timings.predicted_n,
        "tokens_evaluated": finished.n_prompt,
        "tokens_cached": finished.n_resident,
        "generation_settings": settings | {"seed_cur": finished.seed},
        "prompt": choice.prompt,
        "has_new_line": finished.has_new_line,
        "truncated": finished.truncated,
        "stop_type": finished.stop_type,
        "stopped_eos": finished.stop_type is StopType.EOS,
        "stopped_word": finished.stop_type is StopType.WORD,
        "stopped_limit": finished.stop_type is StopType.LIMIT,
        "stopping_word": finished.stopping_word,
        "timings": timings_object(finished.timings),
    }
    if options.n_top is not None and not streamed:
        result["completion_probabilities"] = entries([one.probs for one in entries_of(choice)], options)
    return result


def select_fields(result: dict[str, Any], fields: list[ResponseField]) -> dict[str, Any]:
    """Keep only `response_fields`; `a/b` lifts a nested value to a key of that name. Missing ones are left out."""
    if not fields:
        return result
    selected: dict[str, Any] = {}
    for field, path in fields:
        value: Any = result
        for part in path:
            if not isinstance(value, dict) or part not in value:
                break
            value = value[part]
        else:
            selected[field] = value
    return selected


def progress_chunk(index: int, event: Progress, options: Options) -> bytes:
    """An SSE event without text, before the first one with text."""
    chunk = {
        "index": index,
        "content": "",
        "tokens": [],
        "tokens_predicted": 0,
        "tokens_evaluated": event.n_prompt,
        "id_slot": event.id_slot,
        "stop": False,
        "model": options.model,
        "prompt_progress": progress_object(event),
    }
    if options.timings_per_token:
        chunk["timings"] = timings_object(event.timings)
    return b"data: " + dump_line(chunk) + b"\n\n"


class PartialChunks:
    """Builds one sequence's chunks: what is constant is encoded once, each event adds text, ids and a count."""

    def __init__(self, index: int, started: Started, options: Options) -> None:
        self._head = b'data: {"index":%d,"content":' % index
        self._tail = b',"tokens_evaluated":%d,"id_slot":%d,"stop":false,"model":%b' % (
            started.n_prompt,
            started.id_slot,
            dump_text(options.model),
        )
        self._end = self._tail + b"}\n\n"
        self._is_plain = not options.timings_per_token and options.n_top is None
        self._with_timings = options.timings_per_token
        self._options = options

    def chunk(self, text: str, delta: Delta) -> bytes:
        """One SSE event."""
        tokens = b',"tokens":%b,"tokens_predicted":%d' % (dumps(delta.tokens), delta.timings.predicted_n)
        if self._is_plain:
            return self._head + dump_text(text) + tokens + self._end
        timings = b',"timings":' + dumps(timings_object(delta.timings)) if self._with_timings else b""
        probabilities = b"" if self._options.n_top is None else self._probabilities(delta)
        return b"".join((self._head, dump_text(text), tokens, self._tail, timings, probabilities, b"}\n\n"))

    def _probabilities(self, delta: Delta) -> bytes:
        return b',"completion_probabilities":' + dump_line(entries(delta.probs or (), self._options))


class NativeWriter:
    """Chunks as they come, each sequence ending in its full final object with empty content. Streams have no [DONE]."""

    def __init__(
        self,
        options: Options,
        reply: TextReply,
        fields: list[ResponseField],
        *,
        is_list: bool = False,
        shown: str | None = None,
    ) -> None:
        """`fields` of the final objects, empty: all. `is_list`: an array is wanted even of one answer.

        `shown`: the prompt, where the worker does not tell it.
        """
        self._options = options
        self._fields = fields
        self._reply = reply
        self._is_list = is_list or options.params.n > 1
        self._shown = shown
        self._partial: dict[int, PartialChunks] = {}

    def begun(self, choice: Choice, event: PrefillStart) -> bytes:
        return b""

    def progress(self, choice: Choice, event: Progress) -> bytes:
        return progress_chunk(choice.index, event, self._options)

    def started(self, choice: Choice, event: Started) -> bytes:
        self._partial[choice.index] = PartialChunks(choice.index, event, self._options)
        return b""

    def parts(self, choice: Choice, parts: Sequence[Part], event: Delta) -> bytes:
        return self._partial[choice.index].chunk(text_of(parts), event)

    def finished(self, choice: Choice, *, is_last: bool) -> bytes:
        return b"data: " + dump_line(self._final(choice, streamed=True)) + b"\n\n"

    def closing(self) -> bytes:
        return b""

    async def whole(self, choices: Sequence[Choice]) -> Response:
        headers = rate_header(choices[0].finished.timings)
        if self._is_list:
            return JsonArray(self._finals(choices), headers)
        (choice,) = choices
        return await self._reply.build(lambda: JsonResponse(self._final(choice, streamed=False), headers=headers))

    async def _finals(self, choices: Sequence[Choice]) -> AsyncIterator[bytes]:
        for choice in choices:
            yield await self._reply.build(partial(self._whole, choice))

    def _whole(self, choice: Choice) -> bytes:
        return dumps(self._final(choice, streamed=False))

    def _final(self, choice: Choice, *, streamed: bool) -> dict[str, Any]:
        """The last word on a sequence."""
        result = final_object(choice, self._options, self._reply.settings, streamed=streamed)
        if self._shown is not None:
            result["prompt"] = self._shown
        return select_fields(result, self._fields)
