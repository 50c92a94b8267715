"""A reply that is sent before its request was read to the end still reaches the client.

Most clients write their whole request before they look for a reply. A server that answers at once and closes makes
their writing fail, by a reset that throws the reply away too; a proxy then says 502. So the rest is read and forgotten,
within bounds, before the reply ends.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SILENCE = 2.0
"""Seconds between two pieces of a body that is read only to be dropped."""

SECONDS = 30.0
"""And for all of it, where the server does not give less."""


class ReadsOn:
    """The outermost app. A body is read for up to `seconds` and `limit` bytes after its reply."""

    def __init__(self, app: ASGIApp, limit: int, seconds: float = SECONDS) -> None:
        self._app = app
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._limit, self._seconds)
        try:
            await self._app(scope, exchange.receive, exchange.send)
            await exchange.end()
        finally:
            await exchange.stop()


class _Exchange:
    """One request and its reply, whose end is held back while the client still sends."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int, seconds: float) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._is_read = not _has_body(scope)
        self._forgetting: asyncio.Task[None] | None = None
        self._n_left = limit
        self._seconds = seconds

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._is_read = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._is_read:
            if self._scope["http_version"] != "2":  # which forbids the header
                others = [(name, value) for name, value in message["headers"] if name != b"connection"]
                message = {**message, "headers": [*others, (b"connection", b"close")]}
            # Beside the sending: on HTTP/2 an unread body would hold up all other streams.
            self._forgetting = asyncio.create_task(self._forget())
        elif self._forgetting is not None:
            message = {**message, "more_body": True}
        await self._send(message)

    async def end(self) -> None:
        """Ends the reply once the client has sent all, has sent too much, or has taken too long."""
        if self._forgetting is None:
            return
        time = asyncio.get_running_loop().time
        deadline = time() + self._seconds
        n_before = -1
        while n_before != self._n_left > 0 and time() < deadline and not self._is_read:
            n_before = self._n_left
            await asyncio.wait((self._forgetting,), timeout=min(SILENCE, deadline - time()))
        await self.stop()
        self._forgetting = asyncio.create_task(self._forget(for_ever=True))  # what comes would hold up the end
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def stop(self) -> None:
        """Reads no more. Idempotent."""
        if self._forgetting is not None:
            self._forgetting.cancel()
            await asyncio.wait((self._forgetting,))

    async def _forget(self, *, for_ever: bool = False) -> None:
        while not self._is_read and (for_ever or self._n_left > 0):
            self._n_left -= len((await self.receive()).get("body", b""))


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return scope["http_version"] == "2" or "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
