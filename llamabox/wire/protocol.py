"""The messages between the server process and its workers, and their encoding.

    server → worker          Shutdown
    worker → server          Loading · LoadFailed · StopAsked · Beat

    server → text worker     Configure · Submit · SubmitAll · Embed · Abort · Call
    text worker → server     Ready · Step · Vectors · Reply

    server → image worker    ConfigureImages · Draw · Cancel
    image worker → server    ImagesReady · Told

A frame is `u32 header length | u32 payload length | header (JSON) | payload (raw bytes)`, little endian.
The header is `[kind, body]`. One Step carries all events of all requests of one engine step.
The payload is the place of tensors and images: Vectors, Draw and Told have one, all other messages none.

Each group of messages stands in a file of its own, with how each travels; everybody takes them from here.
"""

from __future__ import annotations

import struct
from dataclasses import asdict, is_dataclass
from typing import Any

import orjson

from llamabox.errors import ChannelBroken, LlamaboxError, ServerFault, from_wire
from llamabox.wire import common as messages
from llamabox.wire import image as image_messages
from llamabox.wire import text as text_messages
from llamabox.wire.codec import Wire
from llamabox.wire.common import Beat, CommonMessage, LoadFailed, Loading, Shutdown, StopAsked
from llamabox.wire.image import Cancel, ConfigureImages, Draw, ImageMessage, ImagesReady, Told
from llamabox.wire.text import (
    Abort,
    Call,
    Configure,
    Embed,
    Ready,
    Reply,
    Step,
    Submit,
    SubmitAll,
    TextMessage,
    Vectors,
)

__all__ = [
    "MAX_FRAME",
    "PREFIX",
    "Abort",
    "Beat",
    "Call",
    "Cancel",
    "Configure",
    "ConfigureImages",
    "Draw",
    "Embed",
    "ImagesReady",
    "LoadFailed",
    "Loading",
    "Message",
    "Ready",
    "Reply",
    "Shutdown",
    "Step",
    "StopAsked",
    "Submit",
    "SubmitAll",
    "Told",
    "Vectors",
    "decode",
    "encode",
    "frame_length",
    "read_error",
]

PREFIX = struct.Struct("<II")
MAX_FRAME = 1 << 30
"""A longer frame is a broken peer, not a message."""

Message = CommonMessage | TextMessage | ImageMessage

_WIRES: dict[type[Any], Wire] = {**messages.WIRES, **text_messages.WIRES, **image_messages.WIRES}
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


def read_error(wire: dict[str, Any]) -> LlamaboxError:
    """`errors.from_wire`, but an error that cannot be read is an error as well."""
    try:
        return from_wire(wire)
    except (KeyError, TypeError) as exc:
        return ServerFault(f"the worker failed, with a reason that cannot be read: {wire!r} ({exc!r})")


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
