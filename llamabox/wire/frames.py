"""Frames: the messages between the server process and its workers, as they travel on a socket.

A frame is `u32 header length | u32 payload length | header (JSON) | payload (raw bytes)`, little endian.
The header is `[kind, body]`. Vectors, Draw and Told have a payload, all other messages none.
"""

from __future__ import annotations

import struct
from dataclasses import asdict, is_dataclass
from typing import Any

import orjson

from llamabox.errors import ChannelBroken, ServerFault
from llamabox.wire import common, image, text
from llamabox.wire.codec import Wire

PREFIX = struct.Struct("<II")
MAX_FRAME = 1 << 30
"""A longer frame is a broken peer, not a message."""

Message = common.CommonMessage | text.TextMessage | image.ImageMessage

_WIRES: dict[type[Any], Wire] = {**common.WIRES, **text.WIRES, **image.WIRES}
_BY_KIND: dict[str, Wire] = {wire.kind: wire for wire in _WIRES.values()}


def encode(message: Message) -> bytes:
    """A whole frame. A snapshot: what the engine changes in an event afterwards does not show.

    Raises ServerFault for a message longer than MAX_FRAME, TypeError for a value that JSON has no word for.
    """
    wire = _WIRES[type(message)]
    body, payload = wire.pack(message)
    try:
        header = orjson.dumps((wire.kind, body))
    except orjson.JSONEncodeError:
        # Most likely a lone surrogate, which UTF-8 cannot carry and a JSON body can ("\\ud800").
        plain = asdict(body) if is_dataclass(body) and not isinstance(body, type) else body
        header = orjson.dumps((wire.kind, _without_surrogates(plain)))
    n_bytes = len(header) + len(payload)
    if n_bytes > MAX_FRAME:
        raise ServerFault(f"a {wire.kind} message of {n_bytes} bytes is over the {MAX_FRAME} that a frame may have")
    return PREFIX.pack(len(header), len(payload)) + header + payload


def decode(header: bytes, payload: bytes = b"") -> Message:
    """The message in a frame. Raises ChannelBroken for anything that `encode` does not make."""
    try:
        kind, body = orjson.loads(header)
        message: Message = _BY_KIND[kind].build(body, payload)
    except (KeyError, IndexError, TypeError, ValueError) as exc:
        raise ChannelBroken(f"a frame holds no message: {exc!r} in {header[:80]!r}") from exc
    return message


def frame_length(prefix: bytes) -> tuple[int, int]:
    """Header and payload lengths out of a frame's first eight bytes. Raises ChannelBroken if they are absurd."""
    n_header, n_payload = PREFIX.unpack(prefix)
    if n_header + n_payload > MAX_FRAME:
        raise ChannelBroken(f"a frame of {n_header} + {n_payload} bytes is announced; at most {MAX_FRAME} is right")
    return n_header, n_payload


def _without_surrogates(value: Any) -> Any:
    """The same JSON value with each lone surrogate in its strings replaced by U+FFFD."""
    match value:
        case str():
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        case dict():
            return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_surrogates(item) for item in value]
    return value
