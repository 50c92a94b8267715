"""The events of a stream that both of OpenAI's completion APIs have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llamabox.engine.events import Delta, Progress
from llamabox.server.api.native.writer import final_object
from llamabox.server.api.openai.usage import usage_object
from llamabox.server.fields.request import Options
from llamabox.server.generation.choice import Choice
from llamabox.server.generation.logprobs import Show, StreamedLogprobs
from llamabox.server.generation.reply import TextReply
from llamabox.server.generation.timings import progress_object, timings_object
from llamabox.server.http.json import dump_line, dump_text, dumps

DONE = b"data: [DONE]\n\n"


class Chunks:
    """Builds the SSE events of one reply, with exactly one [DONE]. Where usage goes: docs/api.md, Usage.

    The constant bytes of each sequence are encoded once.
    """

    def __init__(
        self,
        head: dict[str, Any],
        options: Options,
        reply: TextReply,
        *,
        around: tuple[bytes, bytes],
        show: Show,
        starts: Sequence[int] = (),
    ) -> None:
        """`around` stands before and behind the text in a choice, `show` writes its log-probabilities.

        `starts`: where each choice's answer begins in its text, if not at the beginning.
        """
        opening, closing = around
        self._options = options
        self._reply = reply
        self._null_usage = options.include_usage is True  # null on all chunks but the last
        self._with_timings = options.timings_per_token
        self._head = b"data: " + dumps(head)[:-1]  # without the closing brace
        self._logprobs = StreamedLogprobs(show, options, starts)
        self._choice_heads = [
            self._head + b',"choices":[{"index":%d,"finish_reason":null,"logprobs":' % choice.index
            for choice in reply.choices
        ]
        self._opening = b"," + opening
        self._text_heads = [head + b"null" + self._opening for head in self._choice_heads]
        self._text_tail = closing + b"}]" + (b',"usage":null' if self._null_usage else b"")
        self._end = self._text_tail + b"}\n\n"

    def text(self, index: int, text: str, event: Delta) -> bytes:
        """The hot one: a piece of text of one sequence. Nothing where there is no text."""
        head = self._text_heads[index]
        if event.probs is not None:
            logprobs = self._logprobs.chunk(index, event)
            head = self._choice_heads[index] + dump_line(logprobs) + self._opening
        if not text:
            return b""
        if not self._with_timings:
            return head + dump_text(text) + self._end
        timings = b',"timings":' + dumps(timings_object(event.timings))
        return head + dump_text(text) + self._text_tail + timings + b"}\n\n"

    def delta(self, index: int, delta: dict[str, Any], event: Delta | None) -> bytes:
        """A chunk with a delta of another kind than text. Without an event it has no log-probabilities."""
        logprobs = self._logprobs.chunk(index, event) if event is not None and event.probs is not None else None
        extra: dict[str, Any] = {}
        if self._with_timings and event is not None:
            extra["timings"] = timings_object(event.timings)
        return self._event([{"index": index, "finish_reason": None, "logprobs": logprobs, "delta": delta}], extra)

    def first(self, index: int, content: dict[str, Any], progress: Progress | None = None) -> bytes:
        """A chunk without text, whose choice has `content`; with the prompt's progress as llama-server sends it."""
        extra: dict[str, Any] = {}
        if progress is not None:
            extra["prompt_progress"] = progress_object(progress)
            if self._with_timings:
                extra["timings"] = timings_object(progress.timings)
        return self._event([{"index": index, "finish_reason": None, "logprobs": None, **content}], extra)

    def end(self, choice: Choice, content: dict[str, Any], reason: str, *, is_last: bool) -> bytes:
        """The chunk with the finish_reason, and what rides on it."""
        extra: dict[str, Any] = {}
        if is_last and not self._options.include_usage:
            extra = self._totals(with_usage=self._options.include_usage is None)
        if self._options.verbose:
            extra["__verbose"] = final_object(choice, self._options, self._reply.settings, streamed=True)
        value = {
            "index": choice.index,
            "finish_reason": reason,
            "logprobs": self._logprobs.end(choice),
            **content,
        }
        return self._event([value], extra)

    def closing(self) -> bytes:
        """What follows the last choice: OpenAI's chunk without choices, where it is asked for, and [DONE]."""
        if self._options.include_usage:
            return self._event([], self._totals(with_usage=True)) + DONE
        return DONE

    def _totals(self, *, with_usage: bool) -> dict[str, Any]:
        choices = self._reply.choices
        totals: dict[str, Any] = {"timings": timings_object(choices[0].finished.timings)}
        if with_usage:
            totals["usage"] = usage_object(choices, self._options)
        return totals

    def _event(self, choices: list[dict[str, Any]], extra: dict[str, Any]) -> bytes:
        fields: dict[str, Any] = {"choices": choices}
        if self._null_usage:
            fields["usage"] = None
        return self._head + b"," + dump_line(fields | extra)[1:] + b"\n\n"
