"""Replies of POST /v1/responses: the events of a stream, and the object that they add up to.

A plain reply is the last object of the stream that nobody saw: both are one by construction.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.responses import Response

from llamabox.chat.parts import Arguments, Call, Input, Part, Reasoning, Text
from llamabox.checks import wrong
from llamabox.engine.events import Delta, FinishReason, PrefillStart, Progress, Started
from llamabox.errors import ContextExceeded, LlamaboxError, QueueFull, RequestError
from llamabox.server.api.openai.responses.fields import Wanted
from llamabox.server.api.openai.responses.output import Event, Message, OutputItem, Thought, ToolCall
from llamabox.server.api.openai.responses.tools import Toolbox
from llamabox.server.generation.choice import Choice
from llamabox.server.generation.logprobs import EntryQueue, entries
from llamabox.server.generation.reply import MAX_LIKELY
from llamabox.server.generation.timings import progress_object, rate_header, timings_object
from llamabox.server.http.json import JsonResponse, dump_line, dump_text


class ResponseWriter:
    """Writes one response. The answer has one choice."""

    def __init__(self, head: dict[str, Any], wanted: Wanted, toolbox: Toolbox) -> None:
        """`head` is the response without what comes of its answer."""
        self._head = head
        self._wanted = wanted
        self._toolbox = toolbox
        self._n_events = 0
        self._items: list[OutputItem] = []
        self._current: OutputItem | None = None
        self._delta_head = b""
        self._logprobs = Logprobs(wanted) if wanted.with_logprobs else None
        self._end: dict[str, Any] | None = None

    def begun(self, choice: Choice, event: PrefillStart) -> bytes:
        return self._created()

    def progress(self, choice: Choice, event: Progress) -> bytes:
        told = {"type": "response.in_progress", "response": self.object(), "prompt_progress": progress_object(event)}
        return self._created() + self._event(told)

    def started(self, choice: Choice, event: Started) -> bytes:
        return self._created()

    def parts(self, choice: Choice, parts: Sequence[Part], event: Delta) -> bytes:
        if self._logprobs is not None:
            self._logprobs.take(event)
        tail = b""
        if self._wanted.options.timings_per_token:
            tail = b',"timings":' + dump_line(timings_object(event.timings))
        return b"".join(self._part(part, tail) for part in parts)

    def finished(self, choice: Choice, *, is_last: bool) -> bytes:
        is_cut = choice.finished.reason is not FinishReason.STOP
        written = b"" if self._items else self._open(Message())
        written += self._close("incomplete" if is_cut else "completed")
        self._end = {"status": "incomplete" if is_cut else "completed", "usage": usage(choice)}
        if is_cut:
            self._end["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            self._end["completed_at"] = int(time.time())
        told = {"type": f"response.{self._end['status']}", "response": self.object()}
        if self._wanted.options.timings_per_token:
            told["timings"] = timings_object(choice.finished.timings)
        return written + self._event(told)

    def closing(self) -> bytes:
        return b""

    def failed(self, error: LlamaboxError) -> bytes:
        """The end of a stream that an error ended."""
        written = self._created() + self._close("incomplete")
        self._end = {"status": "failed", "error": {"code": error_code(error), "message": error.message}}
        return written + self._event({"type": "response.failed", "response": self.object()})

    async def whole(self, choices: Sequence[Choice]) -> Response:
        headers = rate_header(choices[0].finished.timings)
        return JsonResponse(self.object(), headers=headers)

    def _created(self) -> bytes:
        """The first two events, unless they are out."""
        if self._n_events:
            return b""
        response = self.object()
        return self._event({"type": "response.created", "response": response}) + self._event(
            {"type": "response.in_progress", "response": response}
        )

    def _part(self, part: Part, tail: bytes) -> bytes:
        match part:
            case Text(text):
                opening = b"" if isinstance(self._current, Message) else self._open(Message())
                return opening + self._delta(text, tail)
            case Reasoning(text):
                opening = b""
                if not isinstance(self._current, Thought):
                    summary = self._wanted.summary is not None
                    opening = self._open(Thought(is_summary=summary, is_sealed=self._wanted.with_sealed))
                return opening + self._delta(text, tail)
            case Call(_, call_id, name):
                return self._open(ToolCall(call_id, self._toolbox.named(name), part.is_custom))
            case Arguments(_, text) | Input(_, text):
                return self._delta(text, tail)

    def _open(self, item: OutputItem) -> bytes:
        written = self._close("completed")
        self._current = item
        self._items.append(item)
        index = len(self._items) - 1
        written += self._event({"type": "response.output_item.added", "output_index": index, "item": item.object()})
        place = {"item_id": item.id, "output_index": index}
        written += b"".join(self._event({**event, **place}) for event in item.opening())
        kind = item.delta_type.encode()
        head = dump_line({"type": item.delta_type, **place, **item.place})
        self._delta_head = b"event: " + kind + b"\ndata: " + head[:-1]
        return written

    def _delta(self, text: str, tail: bytes) -> bytes:
        item = self._current
        assert item is not None
        item.add(text)
        if isinstance(item, Message):
            told = self._logprobs.give(item) if self._logprobs is not None else b"[]"
            tail = b',"logprobs":' + told + tail
        elif self._logprobs is not None:
            self._logprobs.drop()
        number = self._n_events
        self._n_events += 1
        return self._delta_head + b',"delta":' + dump_text(text) + tail + b',"sequence_number":%d}\n\n' % number

    def _close(self, status: str) -> bytes:
        """Close the item that is open."""
        item = self._current
        if item is None:
            return b""
        self._current = None
        item.status = status
        index = len(self._items) - 1
        place = {"item_id": item.id, "output_index": index}
        written = b"".join(self._event({**event, **place}) for event in item.closing())
        return written + self._event(
            {"type": "response.output_item.done", "output_index": index, "item": item.object()}
        )

    def _event(self, event: Event) -> bytes:
        number = self._n_events
        self._n_events += 1
        data = dump_line({**event, "sequence_number": number})
        return b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), data)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be written."""
        return self._end is not None

    def cancel(self) -> None:
        """End the response where it is, unless it is over. No event tells so."""
        if self._end is None:
            self._close("incomplete")
            self._end = {"status": "cancelled"}

    def object(self) -> dict[str, Any]:
        """The response as it is now; items are in it once it is over."""
        end = self._end or {}
        output = [item.object() for item in self._items] if self._end is not None else []
        return {**self._head, "output": output, **end}


class Logprobs:
    """The log-probabilities of the tokens that are said to the user; those of thoughts and calls are left out."""

    def __init__(self, wanted: Wanted) -> None:
        self._options = wanted.options
        self._queue = EntryQueue()
        self._waiting: list[orjson.Fragment] = []
        self._n_likely = 0

    def take(self, event: Delta) -> None:
        """Take the entries of more text. Raises InvalidRequest where all of them are too many to be kept."""
        self._n_likely += sum(len(one.top) for one in event.probs or ())
        if self._n_likely > MAX_LIKELY:
            raise wrong("top_logprobs", f"over {MAX_LIKELY} log-probabilities came together; ask for fewer")
        said = self._queue.say(event.text, event.probs or ())
        self._waiting += entries([one.probs for one in said], self._options)

    def give(self, item: Message) -> bytes:
        """The entries of a piece of the item's text, as JSON."""
        said, self._waiting = self._waiting, []
        item.logprobs += said
        return dump_line(said)

    def drop(self) -> None:
        """Forget entries of what is not said to the user."""
        self._waiting = []


def usage(choice: Choice) -> dict[str, Any]:
    """Token counts in this API's words. Tokens of the prompt that were not cached are in the cache from now on."""
    n_predicted = choice.n_predicted
    return {
        "input_tokens": choice.n_prompt,
        "input_tokens_details": {
            "cached_tokens": choice.n_cached,
            "cache_write_tokens": choice.n_prompt - choice.n_cached,
        },
        "output_tokens": n_predicted,
        "output_tokens_details": {"reasoning_tokens": choice.n_thought},
        "total_tokens": choice.n_prompt + n_predicted,
    }


def error_code(error: LlamaboxError) -> str:
    """The code of a response that failed, by which clients decide what to do about it."""
    if isinstance(error, ContextExceeded):
        return "context_length_exceeded"
    if isinstance(error, QueueFull):
        return "rate_limit_exceeded"
    return "invalid_prompt" if isinstance(error, RequestError) else "server_error"
