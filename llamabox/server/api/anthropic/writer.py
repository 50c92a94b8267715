"""Replies of POST /v1/messages: a message of content blocks, or the events of one."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from llamabox.chat.anthropic.messages import CALL_PREFIX
from llamabox.chat.anthropic.signatures import SHOWN, sign
from llamabox.chat.parts import Arguments, Call, Input, Part, Reasoning, Text
from llamabox.engine.events import Delta, FinishReason, PrefillStart, Progress, Started, StopType
from llamabox.server.api.anthropic.partial import partial_object
from llamabox.server.fields.request import Options
from llamabox.server.generation.choice import Choice
from llamabox.server.generation.timings import rate_header
from llamabox.server.http.json import JsonResponse, dump_line, dump_text

PING = b'event: ping\ndata: {"type":"ping"}\n\n'

NONE_IS_CUSTOM = "no tool of this API takes a text instead of arguments"


class MessageWriter:
    """One message. In a stream each block is closed before the next one begins."""

    def __init__(self, options: Options, *, shows_thoughts: bool = True) -> None:
        """Without `shows_thoughts` a thought's block has a signature alone, which holds it."""
        self._options = options
        self._shows_thoughts = shows_thoughts
        self._id = "msg_" + secrets.token_hex(12)
        self._has_begun = False
        self._n_blocks = 0
        self._open: type[Part] | None = None  # what the open block is made of
        self._hidden: list[str] = []  # the thought of an open block that does not show it

    def begun(self, choice: Choice, event: PrefillStart) -> bytes:
        return self._begin(event.n_prompt, event.n_cached)

    def progress(self, choice: Choice, event: Progress) -> bytes:
        return self._begin(event.n_prompt, event.timings.cache_n)

    def started(self, choice: Choice, event: Started) -> bytes:
        return self._begin(event.n_prompt, event.n_cached)

    def parts(self, choice: Choice, parts: Sequence[Part], event: Delta) -> bytes:
        return b"".join(self._part(part) for part in parts)

    def finished(self, choice: Choice, *, is_last: bool) -> bytes:
        reason, word = self._reason(choice)
        delta = {"stop_reason": reason, "stop_sequence": word}
        return self._close() + _event("message_delta", {"delta": delta, "usage": usage_object(choice)})

    def closing(self) -> bytes:
        return _event("message_stop", {})

    async def whole(self, choices: Sequence[Choice]) -> Response:
        (choice,) = choices
        reason, word = self._reason(choice)
        content = blocks_of(choice.parts, shows_thoughts=self._shows_thoughts)
        message = self._message(content, usage_object(choice)) | {"stop_reason": reason, "stop_sequence": word}
        return JsonResponse(message, headers=rate_header(choice.finished.timings))

    def _message(self, content: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._options.model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }

    def _begin(self, n_prompt: int, n_cached: int) -> bytes:
        """The first event, once: a worker that was started again begins a second time."""
        if self._has_begun:
            return b""
        self._has_begun = True
        message = self._message([], _usage(n_prompt, n_cached, n_predicted=0))
        return _event("message_start", {"message": message})

    def _part(self, part: Part) -> bytes:
        match part:
            case Text(text):
                opening = b"" if self._open is Text else self._start(Text, {"type": "text", "text": ""})
                return opening + self._delta(b'"text_delta","text":', text)
            case Reasoning(text):
                empty = {"type": "thinking", "thinking": "", "signature": ""}
                opening = b"" if self._open is Reasoning else self._start(Reasoning, empty)
                if not self._shows_thoughts:
                    self._hidden.append(text)
                    return opening
                return opening + self._delta(b'"thinking_delta","thinking":', text)
            case Call():
                return self._start(Call, call_block(part))
            case Arguments(_, text):
                return self._delta(b'"input_json_delta","partial_json":', text)
            case Input():
                raise AssertionError(NONE_IS_CUSTOM)

    def _start(self, kind: type[Part], block: dict[str, Any]) -> bytes:
        closing = self._close()
        self._open = kind
        return closing + _event("content_block_start", {"index": self._n_blocks, "content_block": block})

    def _close(self) -> bytes:
        """The end of the block that is open."""
        if self._open is None:
            return b""
        signature = b""
        if self._open is Reasoning:
            signed = SHOWN if self._shows_thoughts else sign("".join(self._hidden))
            signature = self._delta(b'"signature_delta","signature":', signed)
            self._hidden.clear()
        closing = _event("content_block_stop", {"index": self._n_blocks})
        self._open = None
        self._n_blocks += 1
        return signature + closing

    def _delta(self, head: bytes, text: str) -> bytes:
        """`head` is the delta's type and the name of its text."""
        return (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":'
            % self._n_blocks
            + head
            + dump_text(text)
            + b"}}\n\n"
        )

    def _reason(self, choice: Choice) -> tuple[str, str | None]:
        """`stop_reason` and `stop_sequence`."""
        end = choice.finished
        if end.reason is FinishReason.LENGTH:
            is_full = end.truncated and choice.n_predicted != self._options.params.n_predict
            return "model_context_window_exceeded" if is_full else "max_tokens", None
        if end.stop_type is StopType.WORD and end.stopping_word in self._options.params.stop:
            return "stop_sequence", end.stopping_word
        return "tool_use" if choice.n_calls else "end_turn", None


def usage_object(choice: Choice) -> dict[str, Any]:
    """Token counts. `input_tokens` are those that were computed; nothing is written to a cache at a price."""
    usage = _usage(choice.n_prompt, choice.n_cached, n_predicted=choice.n_predicted)
    return usage | {"output_tokens_details": {"thinking_tokens": choice.n_thought}}


def _usage(n_prompt: int, n_cached: int, *, n_predicted: int) -> dict[str, Any]:
    return {
        "input_tokens": n_prompt - n_cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": n_cached,
        "output_tokens": n_predicted,
        "service_tier": "standard",
    }


def call_block(call: Call) -> dict[str, Any]:
    """The block of a call, still without its input."""
    return {"type": "tool_use", "id": CALL_PREFIX + call.id, "name": call.name, "input": {}}


def blocks_of(parts: Sequence[Part], *, shows_thoughts: bool) -> list[dict[str, Any]]:
    """The blocks of a whole answer. The input of a call that was cut off is what came of it."""
    blocks: list[dict[str, Any]] = []
    before: type[Part] | None = None
    for part in parts:
        match part:
            case Text(text):
                if before is not Text:
                    blocks.append({"type": "text", "text": ""})
                blocks[-1]["text"] += text
            case Reasoning(text):
                if before is not Reasoning:
                    blocks.append({"type": "thinking", "thinking": "", "signature": SHOWN})
                blocks[-1]["thinking"] += text
            case Call():
                blocks.append(call_block(part) | {"input": ""})
            case Arguments(_, text):
                blocks[-1]["input"] += text
            case Input():
                raise AssertionError(NONE_IS_CUSTOM)
        before = type(part)
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = partial_object(block["input"])
        elif block["type"] == "thinking" and not shows_thoughts:
            block |= {"thinking": "", "signature": sign(block["thinking"])}
    return blocks


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + dump_line({"type": kind, **fields}) + b"\n\n"
