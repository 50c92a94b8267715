"""Transcripts in OpenAI's words, whole and as server-sent events."""

from __future__ import annotations

from typing import Any

from llamabox.engine.events import Delta, Progress, Started
from llamabox.server.generation.choice import Choice
from llamabox.server.http.json import dump_line

DONE = b"data: [DONE]\n\n"


def whole_transcript(choice: Choice) -> dict[str, Any]:
    """The plain reply."""
    return {"text": choice.text, "usage": usage_object(choice)}


def usage_object(choice: Choice) -> dict[str, Any]:
    """Token counts as this route has them; the recording's rows are among the input."""
    return {
        "type": "tokens",
        "input_tokens": choice.n_prompt,
        "output_tokens": choice.n_predicted,
        "total_tokens": choice.n_prompt + choice.n_predicted,
        "input_token_details": {"audio_tokens": choice.n_audio, "text_tokens": choice.n_prompt - choice.n_audio},
    }


class TranscriptEvents:
    """A delta for each piece of text, and the whole text at the end."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def progress(self, choice: Choice, event: Progress) -> bytes:
        return b""

    def started(self, choice: Choice, event: Started) -> bytes:
        return b""

    def text(self, choice: Choice, event: Delta) -> bytes:
        if not event.text:
            return b""
        self._pieces.append(event.text)
        return _event({"type": "transcript.text.delta", "delta": event.text})

    def finished(self, choice: Choice, *, is_last: bool) -> bytes:
        return _event(
            {"type": "transcript.text.done", "text": "".join(self._pieces), "usage": usage_object(choice)},
        )

    def closing(self) -> bytes:
        return DONE


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + dump_line(value) + b"\n\n"
