"""Transcripts in OpenAI's words, whole and as server-sent events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import PlainTextResponse, Response

from llamabox.chat.parts import Part
from llamabox.engine.events import Delta, PrefillStart, Progress, Started
from llamabox.server.generation.choice import Choice
from llamabox.server.generation.timings import rate_header
from llamabox.server.generation.writer import text_of
from llamabox.server.http.json import JsonResponse, dump_line

DONE = b"data: [DONE]\n\n"


def usage_object(choice: Choice) -> dict[str, Any]:
    """Token counts as this route has them; the recording's rows are among the input."""
    return {
        "type": "tokens",
        "input_tokens": choice.n_prompt,
        "output_tokens": choice.n_predicted,
        "total_tokens": choice.n_prompt + choice.n_predicted,
        "input_token_details": {"audio_tokens": choice.n_audio, "text_tokens": choice.n_prompt - choice.n_audio},
    }


class TranscriptWriter:
    """In a stream a delta for each piece of text, and the whole text at the end."""

    def __init__(self, *, as_text: bool) -> None:
        """`as_text`: the plain reply is the bare text."""
        self._as_text = as_text
        self._pieces: list[str] = []

    def begun(self, choice: Choice, event: PrefillStart) -> bytes:
        return b""

    def progress(self, choice: Choice, event: Progress) -> bytes:
        return b""

    def started(self, choice: Choice, event: Started) -> bytes:
        return b""

    def parts(self, choice: Choice, parts: Sequence[Part], event: Delta) -> bytes:
        text = text_of(parts)
        if not text:
            return b""
        self._pieces.append(text)
        return _event({"type": "transcript.text.delta", "delta": text})

    def finished(self, choice: Choice, *, is_last: bool) -> bytes:
        return _event(
            {"type": "transcript.text.done", "text": "".join(self._pieces), "usage": usage_object(choice)},
        )

    def closing(self) -> bytes:
        return DONE

    async def whole(self, choices: Sequence[Choice]) -> Response:
        (choice,) = choices
        text, headers = text_of(choice.parts), rate_header(choice.finished.timings)
        if self._as_text:
            return PlainTextResponse(text, headers=headers)
        return JsonResponse({"text": text, "usage": usage_object(choice)}, headers=headers)


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + dump_line(value) + b"\n\n"
