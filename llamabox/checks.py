"""A request's JSON: a body from bytes to fields, and one checker for each kind of value.

JSON's null means absent everywhere: `parse_body` and `present` leave nulls out, so no checker sees one. Checkers take
the field's name and its value, or with a default the body and the field's name. They raise InvalidRequest, which names
the field and says what would be right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import orjson

from llamabox.errors import BodyTooLarge, InvalidRequest

MAX_VALUES = 1_000_000
"""Values in one body: 64 MiB of `{},{},…` would be a gigabyte of Python objects."""

SEPARATORS = (b",", b"[", b"{")
"""There is one before each value of a body but the first, at the least."""

FEW = 256
"""A byte that a body has no more often is looked for, not counted: a picture in base64 has none of millions."""

BOM = b"\xef\xbb\xbf"
"""The byte order mark that editors on Windows put before a text in UTF-8."""

INT32_MAX = 2**31 - 1
FLOAT32_MAX = 3.4028234663852886e38

VALUES = frozenset({"const", "default", "example"})
LISTS_OF_VALUES = frozenset({"enum", "examples"})
"""Keywords of a JSON schema with values, which may be null."""

MAX_SCHEMA_LEVELS = 300
"""Objects and arrays within each other that are looked at. Python's stack has room for three times as many calls."""

Default = TypeVar("Default")


def parse_body(raw: bytes | bytearray, array_as: str | None = None) -> dict[str, Any]:
    """A JSON object without its nulls, whatever the content type says. InvalidRequest for anything else.

    With `array_as` it must be an array, which becomes the field of that name.
    """
    if len(raw) > MAX_VALUES and sum(_count(raw, one) for one in SEPARATORS) > MAX_VALUES:
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


def _count(raw: bytes | bytearray, byte: bytes) -> int:
    """How often it is there. `find` leaps over what has none of it twenty times as fast as `count` goes."""
    start = 0
    for n in range(FEW):
        start = raw.find(byte, start) + 1
        if start == 0:
            return n
    return FEW + raw.count(byte, start)


def n_bytes(text: str) -> int:
    """Bytes of a text in UTF-8. Most texts are ASCII, and then nothing is copied: new memory of megabytes is slow."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def present(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without its nulls: null means absent."""
    return {field: value for field, value in body.items() if value is not None}


def without_nulls(schema: Any, n_levels: int = MAX_SCHEMA_LEVELS) -> Any:
    """A JSON schema, or a tool around one, without the keywords that are null: so Go and C# write what is left out.

    Values that a schema names, such as a default, stay as they are; so does what is nested deeper than `n_levels`.
    """
    if n_levels == 0:
        return schema
    if isinstance(schema, list):
        return [without_nulls(one, n_levels - 1) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value if key in VALUES or key in LISTS_OF_VALUES else without_nulls(value, n_levels - 1)
        for key, value in schema.items()
        if value is not None or key in VALUES
    }


def first_present(body: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The first of several names of one field that the body has."""
    return next((name for name in names if name in body), None)


def wrong(field: str, what: str) -> InvalidRequest:
    """The error that names a field."""
    return InvalidRequest(f"Field '{field}': {what}", field=field)


def describe(value: Any) -> str:
    """A value as JSON has it, shortened, for error messages."""
    if value is True or value is False or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else text[:40] + "…"


def boolean(field: str, value: Any) -> bool:
    """true or false, nothing that merely looks like it."""
    if not isinstance(value, bool):
        raise wrong(field, f"must be true or false, not {describe(value)}")
    return value


def flag(body: Mapping[str, Any], field: str, default: Default) -> bool | Default:
    """A boolean that may be left out."""
    return boolean(field, body[field]) if field in body else default


def integer(field: str, value: Any, low: int, high: int) -> int:
    """A whole number within [low, high]; 3.0 is one, 3.5 and true are not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(field, f"must be an integer, not {describe(value)}")
    # An integer beyond 64 bits arrives as a float: it is whole, and the range refuses it.
    if not math.isfinite(value) or value != math.floor(value):
        raise wrong(field, f"must be an integer, not {describe(value)}")
    if not low <= value <= high:
        raise wrong(field, f"must be between {low} and {high}, not {describe(value)}")
    return int(value)


def whole(body: Mapping[str, Any], field: str, low: int, high: int, default: Default) -> int | Default:
    """An integer that may be left out."""
    return integer(field, body[field], low, high) if field in body else default


def number(field: str, value: Any, low: float, high: float) -> float:
    """A finite number within [low, high]."""
    checked = _finite(field, value)
    if not low <= checked <= high:
        raise wrong(field, f"must be between {low:g} and {high:g}, not {describe(value)}")
    return checked


def real(body: Mapping[str, Any], field: str, low: float, high: float, default: Default) -> float | Default:
    """A number that may be left out."""
    return number(field, body[field], low, high) if field in body else default


def clamped(field: str, value: Any, low: float, high: float) -> float:
    """A finite number; one outside [low, high] becomes the nearer bound."""
    return min(max(_finite(field, value), low), high)


def string(field: str, value: Any) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise wrong(field, f"must be a string, not {describe(value)}")
    return value


def one_of(field: str, value: Any, known: Iterable[str]) -> str:
    """One of the texts in `known`."""
    known = list(known)
    if string(field, value) not in known:
        raise wrong(field, f"must be one of {', '.join(known)}, not {describe(value)}")
    return str(value)


def strings(field: str, value: Any, *, max_count: int, max_length: int) -> list[str]:
    """An array of texts, bounded in count and in the characters of each."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise wrong(field, "must be an array of strings")
    if len(value) > max_count:
        raise wrong(field, f"must have at most {max_count} entries, not {len(value)}")
    if any(len(item) > max_length for item in value):
        raise wrong(field, f"no entry may be longer than {max_length} characters")
    return value


def mapping(field: str, value: Any) -> dict[str, Any]:
    """A JSON object; its nulls are still in it."""
    if not isinstance(value, dict):
        raise wrong(field, f"must be an object, not {describe(value)}")
    return value


def _finite(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(field, f"must be a number, not {describe(value)}")
    if not -FLOAT32_MAX <= value <= FLOAT32_MAX:  # false for NaN too
        raise wrong(field, f"must be a finite 32-bit number, not {describe(value)}")
    return float(value)
