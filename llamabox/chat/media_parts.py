"""Parts of a message's content that are pictures or recordings, in the forms of several APIs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamabox.checks import describe, one_of, present, string, wrong
from llamabox.media.source import MediaSource

PICTURES = frozenset({"image_url", "input_image", "image"})
SOUNDS = frozenset({"input_audio", "audio_url"})
VIDEOS = frozenset({"video_url", "input_video", "video"})
MEDIA_PARTS = PICTURES | SOUNDS | VIDEOS
"""Values of a part's `type`."""

LOW_DETAIL = 512
"""Pixels that neither side of a picture is to exceed with `"detail": "low"`, as OpenAI has it."""

DETAILS: Mapping[str, int | None] = {"auto": None, "high": None, "low": LOW_DETAIL}
"""The most pixels of a side; None: as many as the model takes."""

FORMATS = ("wav", "mp3", "flac", "ogg")
"""What `format` of `input_audio` may be. The file itself says which of them it is."""

ADDRESSES = ("url", "data")
"""Names of what an object says of its bytes: a URL, a data URI or base64 in either."""


def parse_media(part: Mapping[str, Any], where: str) -> MediaSource:
    """The source of a part whose `type` is one of MEDIA_PARTS. Raises InvalidRequest for video, or naming the field."""
    part = present(part)
    kind = part["type"]
    if kind in VIDEOS:
        raise wrong(where, "video input is not supported by this server; send single pictures as image_url")
    if kind in PICTURES:
        return _picture(part, where)
    return _sound(part, where)


def _picture(part: Mapping[str, Any], where: str) -> MediaSource:
    if "file_id" in part:
        raise wrong(f"{where}.file_id", "files are not kept by this server; send the picture itself as image_url")
    name = next((name for name in ("image_url", "image", "source", "url") if name in part), None)
    if name is None:
        wanted = "image" if part["type"] == "image" else "image_url"
        raise wrong(f"{where}.{wanted}", "must be provided: a data URI, base64 or a URL, or an object with such a url")
    value = part[name]
    field, data = _data(value, f"{where}.{name}")
    detail = present(value).get("detail", part.get("detail")) if isinstance(value, dict) else part.get("detail")
    max_side = None if detail is None else DETAILS[one_of(f"{where}.{name}.detail", detail, DETAILS)]
    return MediaSource(kind="image", data=data, field=field, max_side=max_side)


def _sound(part: Mapping[str, Any], where: str) -> MediaSource:
    name = part["type"]
    if name not in part:
        wanted = "an object with data, base64, and its format" if name == "input_audio" else "a URL"
        raise wrong(f"{where}.{name}", f"must be provided: {wanted}")
    value = part[name]
    field, data = _data(value, f"{where}.{name}")
    if isinstance(value, dict) and value.get("format") is not None:
        one_of(f"{where}.{name}.format", value["format"], FORMATS)
    return MediaSource(kind="audio", data=data, field=field)


def _data(value: object, where: str) -> tuple[str, str]:
    """The field that has the bytes, and its text."""
    if isinstance(value, str):
        return where, value
    if not isinstance(value, dict):
        raise wrong(where, f"must be a string or an object with url, not {describe(value)}")
    for name in ADDRESSES:
        if value.get(name) is not None:
            return f"{where}.{name}", string(f"{where}.{name}", value[name])
    raise wrong(where, "must have url or data: a URL, a data URI or base64")
