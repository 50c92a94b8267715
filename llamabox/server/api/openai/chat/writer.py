"""Replies of POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from llamabox.chat.formats.form import Thought
from llamabox.chat.parts import Arguments, Call, Input, Part, Reasoning, Text
from llamabox.engine.events import Delta, FinishReason, PrefillStart, Progress, Started
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

    def __init__(
        self,
        options: Options,
        reply: TextReply,
        info: ModelInfo,
        *,
        has_functions: bool = False,
        inline: Thought | None = None,
    ) -> None:
        """`has_functions`: a call is told in OpenAI's old words, as the request was.

        `inline` is what stands around a thought where a whole reply has it in its text as well.
        """
        self._has_functions = has_functions
        self._inline = inline
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

    def begun(self, choice: Choice, event: PrefillStart) -> bytes:
        return b""

    def progress(self, choice: Choice, event: Progress) -> bytes:
        return self._chunks.first(choice.index, EMPTY, event)

    def started(self, choice: Choice, event: Started) -> bytes:
        return self._chunks.first(choice.index, EMPTY)

    def parts(self, choice: Choice, parts: Sequence[Part], event: Delta) -> bytes:
        if len(parts) == 1 and isinstance(part := parts[0], Text):  # as nearly always
            return self._chunks.text(choice.index, part.text, event)
        if all(isinstance(part, Text) for part in parts):
            return self._chunks.text(choice.index, text_of(parts), event)
        deltas = [self._delta(part) for part in parts]
        return b"".join(self._chunks.delta(choice.index, delta, None if i else event) for i, delta in enumerate(deltas))

    def finished(self, choice: Choice, *, is_last: bool) -> bytes:
        return self._chunks.end(choice, {"delta": {}}, self._reason(choice), is_last=is_last)

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
            "finish_reason": self._reason(choice),
            "logprobs": whole_logprobs(token_objects, choice, self._options),
            "message": self._message(choice.parts),
        }

    def _message(self, parts: Sequence[Part]) -> dict[str, Any]:
        text, calls = text_of(parts), calls_of(parts)
        thought = "".join(part.text for part in parts if isinstance(part, Reasoning))
        if thought and self._inline is not None:
            text = f"{self._inline.open}{thought}{self._inline.close.rstrip()}\n\n{text}".rstrip()
        message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else "")}
        if thought:
            message["reasoning_content"] = thought
        if calls and self._has_functions:
            message["function_call"] = calls[0]["function"]
        elif calls:
            message["tool_calls"] = calls
        return message

    def _delta(self, part: Part) -> dict[str, Any]:
        match part:
            case Text(text):
                return {"content": text}
            case Reasoning(text):
                return {"reasoning_content": text}
            case Call(index, call_id, name, is_custom=True):
                return {"tool_calls": [{"index": index, **_custom_call(call_id, name)}]}
            case Input(index, text):
                return {"tool_calls": [{"index": index, "custom": {"input": text}}]}
            case Call(index, call_id, name):
                function = {"name": name, "arguments": ""}
                if self._has_functions:
                    return {"function_call": function}
                return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}
            case Arguments(index, text):
                if self._has_functions:
                    return {"function_call": {"arguments": text}}
                return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}

    def _reason(self, choice: Choice) -> str:
        """An answer that was cut off is cut off, whatever it has called by then."""
        reason = choice.finished.reason
        if reason is not FinishReason.STOP or not choice.n_calls:
            return reason
        return "function_call" if self._has_functions else "tool_calls"


def calls_of(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """The calls of a whole answer."""
    calls: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, Call) and part.is_custom:
            calls.append(_custom_call(part.id, part.name))
        elif isinstance(part, Input):
            calls[part.index]["custom"]["input"] += part.text
        elif isinstance(part, Call):
            calls.append({"id": part.id, "type": "function", "function": {"name": part.name, "arguments": ""}})
        elif isinstance(part, Arguments):
            calls[part.index]["function"]["arguments"] += part.text
    return calls


def _custom_call(call_id: str, name: str) -> dict[str, Any]:
    return {"id": call_id, "type": "custom", "custom": {"name": name, "input": ""}}


def token_objects(found: Sequence[TokenEntry], options: Options) -> dict[str, Any]:
    """A choice's `logprobs`: an object for each token."""
    return {"content": entries([one.probs for one in found], options)}
