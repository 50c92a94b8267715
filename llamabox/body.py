"""A request's body, from bytes to what its fields say."""

from __future__ import annotations

from typing import Any

import orjson

from llamabox.errors import BodyTooLarge, InvalidRequest

MAX_VALUES = 1_000_000
"""Values in one body: 64 MiB of `{},{},…` would be a gigabyte of Python objects."""

BOM = b"\xef\xbb\xbf"
"""What editors on Windows put before a text in UTF-8."""


def present(body: dict[str, Any]) -> dict[str, Any]:
    """The body without its nulls: null means absent."""
    return {field: value for field, value in body.items() if value is not None}


def parse_body(raw: bytes | bytearray, array_as: str | None = None) -> dict[str, Any]:
    """A JSON object without its nulls, whatever the content type says. InvalidRequest for anything else.

    With `array_as` it must be an array, which becomes the field of that name.
    """
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_VALUES:
        raise BodyTooLarge(f"the request body holds more than {MAX_VALUES} values")
    try:
        body = orjson.loads(memoryview(raw)[len(BOM) :] if raw.startswith(BOM) else raw)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequest(f"the request body is not valid JSON: {exc}") from exc
    if array_as is not None:
        if not isinstance(body, list):
            raise InvalidRequest("the request body must be a JSON array")
        return {array_as: body}
    if not isinstance(body, dict):
        raise InvalidRequest("the request body must be a JSON object")
    return present(body)
