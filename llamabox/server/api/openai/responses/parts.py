"""The content of items: a text, or parts with texts, files, pictures and sound."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from llamabox.chat.markers import Markers, content_of_parts
from llamabox.chat.media_parts import MEDIA_PARTS, parse_media
from llamabox.checks import describe, mapping, present, string, wrong

TEXTS = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
}
"""Parts that are texts, and the field that has the text."""

FILE = "input_file"


def content_of(value: object, where: str, markers: Markers) -> str | list[dict[str, str]]:
    """A message's content in the form of `chat.messages`. Raises InvalidRequest naming the part."""
    if isinstance(value, str):
        return value
    return content_of_parts(value, where, markers, _part)


def _part(value: object, where: str, markers: Markers) -> tuple[str, bool]:
    """The part's text, and whether that is a marker."""
    part = present(mapping(where, value))
    kind = part.get("type")
    if isinstance(kind, str) and kind in TEXTS:
        name = TEXTS[kind]
        return string(f"{where}.{name}", part.get(name)), False
    if isinstance(kind, str) and kind in MEDIA_PARTS:
        return markers.add(parse_media(part, where)), True
    if kind == FILE:
        return _file(part, where), False
    raise wrong(
        f"{where}.type",
        f"must be input_text, input_image, input_audio, input_file, output_text or refusal, not {describe(kind)}",
    )


def _file(part: Mapping[str, Any], where: str) -> str:
    """A file's text under its name. Files of other kinds than text are no input for a language model."""
    for name in ("file_id", "file_url"):
        if name in part:
            raise wrong(f"{where}.{name}", "files are not kept or fetched by this server; send the text as file_data")
    field = f"{where}.file_data"
    data = string(field, part.get("file_data"))
    encoded = data.partition(",")[2] if data.startswith("data:") else data
    try:
        text = base64.b64decode(encoded, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise wrong(field, "must be base64, or a data URI with it, of a text in UTF-8; convert other files") from error
    if "\0" in text:
        raise wrong(field, "must be of a text; convert other files")
    title = string(f"{where}.filename", part.get("filename", ""))
    return f"{title}\n{text}" if title else text
