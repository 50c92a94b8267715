"""Server-sent events: the headers wait for the prompt's turn, a silent stream is pinged; trailers on HTTP/2."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from llamabox.errors import ClientTooSlow, LlamaboxError
from llamabox.server.http.errors import error_event
from llamabox.server.http.record import record_of
from llamabox.server.listening.arrival import arrival_of

PING = b":\n\n"


class EventStream(Response):
    """Sends the byte strings that `chunks` yields, each one or more whole events.

    The headers go with the first chunk, which may be empty, and after `ping_interval` without one: many a gateway ends
    a connection that says nothing for a minute. An error before the headers is raised, to become an HTTP status, which
    clients try again, unless it is one that the stream `tells`; a later one is the last event.

    Behind the headers a chunk takes the connection's short cut, past the middleware, which looks at headers alone.
    """

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        ping_interval: float,
        ping: Callable[[], bytes] = lambda: PING,
        failed: Callable[[LlamaboxError], bytes] = error_event,
        tells: type[LlamaboxError] | None = None,
        trailer: str | None = None,
        trailers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`ping_interval` in seconds; 0: no pings. `ping` makes the comment of each, `failed` the event of an error.

        Errors of the class `tells` are events also where nothing was sent before.
        `trailer` names the field that `trailers` gives at the end, for clients that ask for it.
        """
        self.status_code = 200
        self.background = None
        self._chunks = chunks
        self._ping_interval = ping_interval
        self._ping_text = ping
        self._failed = failed
        self._tells = tells
        self._trailer = trailer
        self._trailers = trailers
        self._last_sent = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with_trailers = self._trailer is not None and _takes_trailers(scope)
        async with aclosing(self._chunks):
            first = asyncio.create_task(self._next())
            try:
                await asyncio.wait((first,), timeout=self._ping_interval or None)
                is_silent = not first.done() or (not self._is_told(first.exception()) and first.result() == b"")
                await send(self._start(scope, with_trailers=with_trailers))
                if is_silent and self._ping_interval:
                    await self._send(self._ping_text(), send)
                await self._send_all(first, scope, send)
            finally:
                first.cancel()
                await asyncio.wait((first,))
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        if with_trailers:
            found = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._trailers().items()]
            await send({"type": "http.response.trailers", "headers": found, "more_trailers": False})

    def _is_told(self, error: BaseException | None) -> bool:
        return self._tells is not None and isinstance(error, self._tells)

    async def _next(self) -> bytes | None:
        """The next chunk; None after the last."""
        return await anext(self._chunks, None)

    def _start(self, scope: Scope, *, with_trailers: bool) -> Message:
        headers = _headers(scope)
        if self._trailer is not None and with_trailers:
            headers.append((b"trailer", self._trailer.encode("latin-1")))
        return {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": headers,
            "trailers": with_trailers,
        }

    async def _send_all(self, first: asyncio.Task[bytes | None], scope: Scope, send: Send) -> None:
        pinging = asyncio.create_task(self._ping(send))
        write_piece, time = arrival_of(scope).write_piece, asyncio.get_running_loop().time
        try:
            if chunk := await first:
                await self._send(chunk, send)
            async for chunk in self._chunks:
                if chunk and write_piece(chunk):
                    self._last_sent = time()
                elif chunk:
                    await self._send(chunk, send)
        except LlamaboxError as exc:
            if isinstance(exc, ClientTooSlow):
                record_of(scope).cut(exc.message)
            await self._send(self._failed(exc), send)
        finally:
            pinging.cancel()
            await asyncio.wait((pinging,))

    async def _send(self, data: bytes, send: Send) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})
        self._last_sent = asyncio.get_running_loop().time()

    async def _ping(self, send: Send) -> None:
        """One task a stream, so that an event costs one clock reading and no timer."""
        time = asyncio.get_running_loop().time
        self._last_sent = time()
        while self._ping_interval:
            await asyncio.sleep(self._last_sent + self._ping_interval - time())
            if time() - self._last_sent >= self._ping_interval:
                self._last_sent = time()
                await send({"type": "http.response.body", "body": self._ping_text(), "more_body": True})


def _takes_trailers(scope: Scope) -> bool:
    """Over HTTP/2, which Hypercorn tells by the extension, and only where the client asks for them, as it does too."""
    return "http.response.trailers" in scope.get("extensions", {}) and Headers(scope=scope).get("te") == "trailers"


def _headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    if scope["http_version"] == "1.1":  # HTTP/2 forbids the header
        headers.append((b"connection", b"keep-alive"))
    return headers
