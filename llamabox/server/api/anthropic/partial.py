"""The object that the beginning of a JSON text holds: a call may be cut off amid its arguments."""

from __future__ import annotations

import re
from typing import Any

import orjson

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*(?:"|(\\?\Z))|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)
"""A string, which may be cut off, a sign of punctuation, or a number or word."""

PAIRS = {"{": "}", "[": "]"}


def partial_object(text: str) -> dict[str, Any]:
    """The object as far as its values are complete; empty where none is."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = _closed(text)
    return value if isinstance(value, dict) else {}


def _closed(text: str) -> Any:
    """The longest beginning that is a value once its brackets are closed."""
    open_: list[str] = []
    ends: list[tuple[int, str]] = []  # places at which the text may be cut, and the brackets that are missing there
    for found in TOKEN.finditer(text):
        token = found[0]
        if found[1] is not None:  # it is cut off
            break
        if token in PAIRS:
            open_.append(PAIRS[token])
        elif token in ("}", "]"):
            if open_:
                open_.pop()
        elif token == ",":  # what stands before it is complete
            ends.append((found.start(), "".join(reversed(open_))))
            continue
        ends.append((found.end(), "".join(reversed(open_))))
    for end, closing in reversed(ends):
        try:
            return orjson.loads(text[:end] + closing)
        except orjson.JSONDecodeError:
            continue
    return None
