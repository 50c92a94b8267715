"""Pictures that clients send: found in a form or in JSON, and decoded into plain pixels by a process of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers

from llamabox.checks import describe, wrong
from llamabox.imaging.job import Pixels
from llamabox.media.desk import Room
from llamabox.media.reader import MediaReader
from llamabox.media.source import MediaSource
from llamabox.server.api.images.fields import from_form
from llamabox.server.http.multipart import read_parts

PARTS = ("image", "mask", "control")


@dataclass(slots=True)
class Form:
    """A request's fields as JSON has them, and its pictures as they were sent: files, or texts in base64."""

    fields: dict[str, Any]
    pictures: dict[str, bytes | str] = field(default_factory=dict)


async def read_form(headers: Headers, raw: bytearray, max_part: int) -> Form:
    """Read multipart/form-data whose texts have at most `max_part` bytes. Raises InvalidRequest."""
    texts: dict[str, str] = {}
    pictures: dict[str, list[bytes | str]] = {}
    for part in await read_parts(headers, raw, max_part):
        name = part.name.removesuffix("[]")  # as some clients name the entries of a list
        if name in PARTS:
            sent = part.data if part.is_file else part.text
            if sent not in ("", "null"):
                pictures.setdefault(name, []).append(sent)
        elif part.is_file:
            raise wrong(part.name, f"must be a text; only {', '.join(PARTS)} are files")
        else:
            texts[part.name] = part.text
    return Form(from_form(texts), {part: _only(part, sent) for part, sent in pictures.items()})


def take_pictures(body: dict[str, Any]) -> Form:
    """The pictures of a JSON body, in base64 or as data URIs, taken out of it."""
    pictures: dict[str, bytes | str] = {}
    for part in PARTS:
        if part in body:
            value = body.pop(part)
            one = _only(part, value) if isinstance(value, list) else value
            if not isinstance(one, str):
                raise wrong(part, f"must be a picture in base64 or as a data URI, not {describe(one)}")
            pictures[part] = one
    return Form(body, pictures)


async def decode(
    reader: MediaReader, part: str, sent: bytes | str, width: int, height: int, room: Room, *, channels: int
) -> Pixels:
    """The picture at this size: RGB on white, or with one channel a mask, white where the picture is drawn anew.

    InvalidRequest names the part.
    """
    source = MediaSource(kind="image", data=sent, field=part)
    picture = await reader.fit(source, width, height, room, as_mask=channels == 1)
    return Pixels(width, height, channels, picture.pixels)


def _only(part: str, sent: list[Any]) -> Any:
    if len(sent) != 1:
        raise wrong(part, f"one picture is needed, not {len(sent)}")
    return sent[0]
