"""Frames: the messages between the server process and its workers, as they travel on a socket.

A frame is `u32 header length | u32 payload length | header (JSON) | payload (raw bytes)`, little endian.
The header is `[name of the message's class, its row, lengths of the payload's pieces]`; `codec` says what goes where.
"""

from __future__ import annotations

import struct
from itertools import accumulate, pairwise
from typing import Any, get_args

import orjson

from llamabox.errors import ChannelBroken, ServerFault
from llamabox.wire import common, image, text
from llamabox.wire.codec import encoding_of

PREFIX = struct.Struct("<II")
MAX_FRAME = 1 << 30
"""A longer frame is a broken peer, not a message."""

Message = common.CommonMessage | text.TextMessage | image.ImageMessage

KINDS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """A whole frame. A snapshot: what the engine changes in an event afterwards does not show.

    Raises ServerFault for a message longer than MAX_FRAME, TypeError for a value that its declaration does not allow.
    """
    kind: Any = type(message)
    payload: list[bytes] = []
    row = encoding_of(kind).pack(message, payload)
    lengths = list(map(len, payload))
    try:
        header = orjson.dumps((kind.__name__, row, lengths))
    except orjson.JSONEncodeError:
        # Most likely a lone surrogate, which UTF-8 cannot carry and a JSON body can ("\\ud800").
        header = orjson.dumps((kind.__name__, _without_surrogates(row), lengths))
    n_payload = sum(lengths)
    if len(header) + n_payload > MAX_FRAME:
        raise ServerFault(
            f"a {kind.__name__} of {len(header) + n_payload} bytes is over the {MAX_FRAME} that a frame may have"
        )
    return b"".join((PREFIX.pack(len(header), n_payload), header, *payload))


def decode(header: bytes, payload: bytes = b"") -> Message:
    """The message in a frame. Raises ChannelBroken for anything that `encode` does not make."""
    try:
        name, row, lengths = orjson.loads(header)
        kind = KINDS[name]
        pieces = iter(_cut(payload, lengths))
    except (LookupError, TypeError, ValueError) as exc:
        raise _broken(header, exc) from exc
    unpack = encoding_of(kind).unpack
    try:
        message: Message = unpack(row, pieces)
    except (LookupError, TypeError, ValueError, StopIteration) as exc:
        raise _broken(header, exc) from exc
    if next(pieces, None) is not None:
        raise _broken(header, ValueError("more bytes came than belong to it"))
    return message


def _cut(payload: bytes, lengths: list[int]) -> list[bytes]:
    """The payload's pieces. Raises ValueError where they are not all of it."""
    if not lengths and not payload:
        return []
    ends = list(accumulate(lengths, initial=0))
    if ends[-1] != len(payload) or min(lengths, default=0) < 0:
        raise ValueError(f"{ends[-1]} bytes are announced, and {len(payload)} came")
    return [payload[start:stop] for start, stop in pairwise(ends)]


def _broken(header: bytes, reason: Exception) -> ChannelBroken:
    return ChannelBroken(f"a frame holds no message: {reason!r} in {header[:80]!r}")


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
