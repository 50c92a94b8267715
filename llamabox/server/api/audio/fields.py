"""The form of a transcription into a conversation with one recording, and the fields of a request that generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from llamabox.chat.markers import Markers
from llamabox.chat.messages import Conversation
from llamabox.checks import one_of, wrong
from llamabox.media.source import MediaSource
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.http.multipart import Part

INSTRUCTION = "Transcribe audio to text"
"""What the model is asked where the form has no `prompt`, in llama-server's words."""

FORMATS = ("json", "text")
TEXTS = ("model", "prompt", "language", "response_format")
LITERALS = ("stream", "temperature", "max_tokens", "seed")
"""Fields whose text is read as JSON."""

REFUSED = (
    *("chunking_strategy", "include", "keywords", "known_speaker_names", "known_speaker_references", "languages"),
    "timestamp_granularities",
)
MAX_LANGUAGE = 64
"""Characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcription:
    """A request to write down a recording."""

    conversation: Conversation
    as_text: bool  # the reply is the bare text
    body: dict[str, Any]  # the fields that generating has: stream, temperature, model and the like


def parse_transcription(parts: Sequence[Part], config: ModelConfig) -> Transcription:
    """Of a form's parts. Raises InvalidRequest naming the field that is wrong."""
    recording = _recording(parts)
    fields = _fields(parts)
    as_text = one_of("response_format", fields.get("response_format", "json"), FORMATS) == "text"
    body = {name: fields[name] for name in ("model", *LITERALS) if name in fields}
    if "temperature" not in config.given:
        body.setdefault("temperature", 0.0)  # OpenAI's
    if as_text and body.get("stream") is True:
        raise wrong("response_format", '"text" cannot be streamed; leave it out or say "json"')
    instruction = fields.get("prompt", INSTRUCTION)
    if language := fields.get("language"):
        if len(language) > MAX_LANGUAGE:
            raise wrong("language", f"must have at most {MAX_LANGUAGE} characters, as en or German")
        instruction += f" (language: {language})"
    markers = Markers()
    content = instruction + markers.add(MediaSource(kind="audio", data=recording, field="file"))
    return Transcription(
        conversation=Conversation(
            messages=({"role": "user", "content": content},), media=tuple(markers.sources), marker=markers.random
        ),
        as_text=as_text,
        body=body,
    )


def _recording(parts: Sequence[Part]) -> bytes:
    found = [part for part in parts if part.name == "file"]
    if len(found) != 1 or not found[0].is_file:
        raise wrong("file", 'must be provided once, as a file: "file" of the form is the recording')
    return found[0].data


def _fields(parts: Sequence[Part]) -> dict[str, Any]:
    """The form's texts by name, without those that are empty or `null`."""
    fields: dict[str, Any] = {}
    for part in parts:
        name = part.name.removesuffix("[]")  # as some clients name the entries of a list
        if name == "file":
            continue
        if part.is_file:
            raise wrong(name, "must be a text; only file is a file")
        text = part.text
        if name in REFUSED and text:
            raise wrong(name, "is not supported by this server; leave it out")
        if text and text != "null" and name in (*TEXTS, *LITERALS):
            fields[name] = _literal(text) if name in LITERALS else text
    return fields


def _literal(text: str) -> Any:
    """The value that a text stands for. A text that is no JSON stays one, for the checker of its field to refuse."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
