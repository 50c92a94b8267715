"""JSON on the wire: UTF-8, compact, never a bare NaN."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PIECE = 64 << 10
"""Bytes of an array that go out together."""

PIECES = 256
"""Pieces of a reply that go out together, before others get their turn on the event loop."""

LINE_BREAKS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))
"""NEL, LS and PS: JSON leaves them alone, but many a client splits an event stream with str.splitlines()."""


def dumps(value: Any) -> bytes:
    """NaN and infinities become null, which orjson does by itself."""
    return orjson.dumps(value)


def dump_text(text: str) -> bytes:
    """A JSON string without any character that some client would take for the end of a line."""
    data = orjson.dumps(text)
    if not text.isascii():
        for raw, escaped in LINE_BREAKS:
            if raw in data:
                data = data.replace(raw, escaped)
    return data


def dump_line(value: Any) -> bytes:
    """Any value as JSON without a character that some client would take for the end of a line."""
    data = dumps(value)
    for raw, escaped in LINE_BREAKS:
        if raw in data:
            data = data.replace(raw, escaped)
    return data


class JsonResponse(Response):
    """A whole JSON reply."""

    media_type = "application/json; charset=utf-8"

    def __init__(self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status_code, headers)

    def render(self, content: Any) -> bytes:
        return dumps(content)


class JsonArray(Response):
    """A JSON array whose items are made as they are sent: together they may be hundreds of megabytes.

    An item may be several with commas between them. `head` and `tail` put the array into another value.
    """

    media_type = "application/json; charset=utf-8"

    def __init__(
        self,
        items: AsyncIterator[bytes],
        headers: Mapping[str, str] | None = None,
        *,
        head: bytes = b"[",
        tail: bytes = b"]",
    ) -> None:
        super().__init__(None, headers=headers)
        del self.headers["content-length"]
        self._items = items
        self._head = head
        self._tail = tail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        piece, before = bytearray(self._head), b""
        async for item in self._items:
            piece += before + item
            before = b","
            if len(piece) >= PIECE:
                await send({"type": "http.response.body", "body": bytes(piece), "more_body": True})
                piece.clear()
            await asyncio.sleep(0)  # others have a turn
        await send({"type": "http.response.body", "body": bytes(piece) + self._tail})


class JsonPieces(Response):
    """A JSON reply of many pieces, which are sent one by one: together they may be hundreds of megabytes."""

    media_type = "application/json; charset=utf-8"

    def __init__(self, pieces: list[bytes], headers: Mapping[str, str] | None = None) -> None:
        size = sum(map(len, pieces))
        super().__init__(b"", headers={**(headers or {}), "content-length": str(size)})
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, len(self._pieces), PIECES):
            body = b"".join(self._pieces[start : start + PIECES])
            more = start + PIECES < len(self._pieces)
            await send({"type": "http.response.body", "body": body, "more_body": more})
