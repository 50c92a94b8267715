"""Replies of /v1/chat/completions and /v1/completions, whole and in chunks."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llamabox.engine.events import Delta, Progress, Timings
from llamabox.server.fields.request import Dialect, Options
from llamabox.server.generation.choice import Choice
from llamabox.server.generation.logprobs import StreamedLogprobs, whole_logprobs
from llamabox.server.generation.timings import per_token, predicted_per_second, progress_object, timings_object
from llamabox.server.http.json import dump_line, dump_text, dumps
from llamabox.wire.text_config import ModelInfo

ALPHABET = string.ascii_letters + string.digits

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Envelope:
    """The fields that all chunks of one reply share."""

    dialect: Dialect
    reply_id: str
    created: int  # seconds since the epoch
    model: str
    fingerprint: str

    @classmethod
    def new(cls, dialect: Dialect, options: Options, info: ModelInfo) -> Envelope:
        """An envelope with a new id."""
        prefix = "chatcmpl-" if dialect is Dialect.CHAT else "cmpl-"
        suffix = "".join(secrets.choice(ALPHABET) for _ in range(32))
        return cls(dialect, prefix + suffix, int(time.time()), options.model, info.build)

    def fields(self, *, streamed: bool) -> dict[str, Any]:
        """Everything but `choices` and what follows them."""
        if self.dialect is Dialect.CHAT:
            kind = "chat.completion.chunk" if streamed else "chat.completion"
        else:
            kind = "text_completion"
        return {
            "id": self.reply_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def usage_object(choices: Sequence[Choice], options: Options) -> dict[str, Any]:
    """Token counts and times of a reply (docs/api.md, Usage). A prompt counts once for its sequences."""
    n, foresees = options.params.n, bool(options.prediction)
    prompts = choices[::n]
    n_prompt = sum(choice.n_prompt for choice in prompts)
    timings = [choice.end.timings for choice in choices if choice.end is not None]
    n_predicted = sum(one.predicted_n for one in timings)
    n_audio = sum(choice.n_audio for choice in prompts)
    n_drafted = sum(one.n_drafted for one in timings)
    rates = [predicted_per_second(one) for one in timings if one.predicted_n > 1]
    return {
        "completion_tokens": n_predicted,
        "prompt_tokens": n_prompt,
        "total_tokens": n_prompt + n_predicted,
        "prompt_tokens_details": {
            "cached_tokens": sum(choice.n_cached for choice in prompts),
            **({"audio_tokens": n_audio} if n_audio else {}),
        },
        "time_to_first_token_ms": timings[0].prompt_ms if timings else 0.0,
        "time_per_output_token_ms": per_token(
            sum(max(one.predicted_n - 1, 0) for one in timings), sum(one.predicted_ms for one in timings)
        ),
        "tokens_per_second": sum(rates) / len(rates) if rates else 0.0,
        **(_drafted(n_drafted, sum(one.n_accepted for one in timings)) if n_drafted else {}),
        **(_foreseen(timings) if foresees else {}),
    }


def _drafted(n_drafted: int, n_accepted: int) -> dict[str, Any]:
    """llama-box's words for the tokens of drafts, and the part of them that came."""
    return {"draft_tokens": n_drafted, "draft_tokens_acceptance": n_accepted / n_drafted}


def _foreseen(timings: Sequence[Timings]) -> dict[str, Any]:
    """OpenAI's words for the tokens of a prediction that were tried."""
    n_accepted = sum(one.n_foreseen_accepted for one in timings)
    n_rejected = sum(one.n_foreseen for one in timings) - n_accepted
    details = {"accepted_prediction_tokens": n_accepted, "rejected_prediction_tokens": n_rejected}
    return {"completion_tokens_details": details}


def whole_reply(envelope: Envelope, choices: Sequence[Choice], options: Options) -> dict[str, Any]:
    """A plain reply."""
    return {
        **envelope.fields(streamed=False),
        "choices": [_whole_choice(envelope.dialect, choice, options) for choice in choices],
        "usage": usage_object(choices, options),
        "timings": timings_object(choices[0].finished.timings),
    }


def _whole_choice(dialect: Dialect, choice: Choice, options: Options) -> dict[str, Any]:
    value: dict[str, Any] = {
        "index": choice.index,
        "finish_reason": choice.finished.reason,
        "logprobs": whole_logprobs(dialect, choice, options),
    }
    if dialect is Dialect.CHAT:
        value["message"] = {"role": "assistant", "content": choice.text}
    else:
        value["text"] = choice.text
    return value


class Chunks:
    """Builds the SSE events of one reply. The constant bytes of each sequence are encoded once."""

    def __init__(self, envelope: Envelope, options: Options, n_choices: int) -> None:
        self._envelope = envelope
        self._null_usage = options.include_usage is True  # null on all chunks but the last
        self._with_timings = options.timings_per_token
        head = dumps(envelope.fields(streamed=True))[:-1]  # without the closing brace
        self._head = b"data: " + head
        content = b'"delta":{"content":' if envelope.dialect is Dialect.CHAT else b'"text":'
        self._logprobs = StreamedLogprobs(envelope.dialect, options)
        self._choice_heads = [
            self._head + b',"choices":[{"index":%d,"finish_reason":null,"logprobs":' % index
            for index in range(n_choices)
        ]
        self._content = b"," + content
        self._text_heads = [head + b"null" + self._content for head in self._choice_heads]
        closing = b"}}]" if envelope.dialect is Dialect.CHAT else b"}]"
        self._text_tail = closing + (b',"usage":null' if self._null_usage else b"")
        self._end = self._text_tail + b"}\n\n"

    def text(self, index: int, delta: Delta) -> bytes:
        """The hot one: a piece of text of one sequence. Nothing where there is no text."""
        head = self._text_heads[index]
        if delta.probs is not None:
            logprobs = self._logprobs.chunk(index, delta)
            head = self._choice_heads[index] + dump_line(logprobs) + self._content
        if not delta.text:
            return b""
        if not self._with_timings:
            return head + dump_text(delta.text) + self._end
        timings = b',"timings":' + dumps(timings_object(delta.timings))
        return head + dump_text(delta.text) + self._text_tail + timings + b"}\n\n"

    def role(self, index: int) -> bytes:
        """The first chunk of a chat choice."""
        return self._event([self._empty(index)], {})

    def progress(self, index: int, event: Progress) -> bytes:
        """A chunk with the prompt's progress in the shape of a first chunk, as llama-server sends it."""
        extra: dict[str, Any] = {"prompt_progress": progress_object(event)}
        if self._with_timings:
            extra["timings"] = timings_object(event.timings)
        return self._event([self._empty(index)], extra)

    def _empty(self, index: int) -> dict[str, Any]:
        head = {"index": index, "finish_reason": None, "logprobs": None}
        if self._envelope.dialect is Dialect.CHAT:
            return {**head, "delta": {"role": "assistant", "content": None}}
        return {**head, "text": ""}

    def end(self, choice: Choice, extra: dict[str, Any]) -> bytes:
        """The chunk with the finish_reason, and what rides on it."""
        value: dict[str, Any] = {
            "index": choice.index,
            "finish_reason": choice.finished.reason,
            "logprobs": self._logprobs.end(choice),
        }
        if self._envelope.dialect is Dialect.CHAT:
            value["delta"] = {}
        else:
            value["text"] = ""
        return self._event([value], extra)

    def usage(self, extra: dict[str, Any]) -> bytes:
        """OpenAI's extra last chunk: no choices, only usage."""
        return self._event([], extra)

    def _event(self, choices: list[dict[str, Any]], extra: dict[str, Any]) -> bytes:
        fields: dict[str, Any] = {"choices": choices}
        if self._null_usage:
            fields["usage"] = None
        return self._head + b"," + dump_line(fields | extra)[1:] + b"\n\n"
