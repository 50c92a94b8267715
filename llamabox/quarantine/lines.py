"""Questions and answers that begin with a line of JSON, with bytes behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson


def pack(call: Mapping[str, Any]) -> bytes:
    """The line. Raises TypeError or RecursionError for what JSON cannot say."""
    return orjson.dumps(call, option=orjson.OPT_APPEND_NEWLINE)


def unpack(message: bytearray) -> tuple[Any, bytearray]:
    """What the line says, and the bytes behind it: the message itself, from there on. ValueError: there is no line."""
    end = message.index(b"\n")
    call = orjson.loads(message[:end])
    del message[: end + 1]
    return call, message
