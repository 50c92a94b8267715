"""Limits for web pages: a page of any site can send requests to a server that its reader's browser reaches.

A browser says with Origin which page asks; programs send none, and nothing here concerns them. A page that made its own
name resolve to this machine (DNS rebinding) looks to the browser like a page of this server: its name in Host tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from llamabox.errors import Forbidden
from llamabox.server.http.errors import error_response
from llamabox.server.http.middleware.chain import RawHeaders, with_headers
from llamabox.server.http.middleware.origins import Hosts, Origins, is_address, is_same_origin
from llamabox.server.listening.arrival import arrival_of

METHODS = b"GET, POST, DELETE, OPTIONS"

HEADERS = "Authorization, Content-Type, X-Api-Key, X-Request-ID, X-Request-Tokens-Per-Second"
"""Headers that pages may send beside those that their preflight names; a `*` would not cover Authorization."""

FIELD_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:\s*,\s*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")

SETTINGS = re.compile("/slots/.*|/lora-adapters|/props")
"""Paths at which a POST changes what other users get."""


class HostCheck:
    """Lets in requests that call the server by a name it has: on loopback this machine's names and those allowed.

    Elsewhere any name will do, unless some are allowed: the server cannot know its names there. Addresses are let
    in: they cannot be made to resolve to another, and probes of containers ask by them.
    """

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        self._app = app
        self._hosts = Hosts(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_loopback = arrival_of(scope).is_loopback
        if scope["type"] == "http" and (is_loopback or self._hosts):
            for host in Headers(scope=scope).getlist("host"):
                is_ours = host in self._hosts or (is_address(host) and not is_loopback)
                if host and not is_ours:  # no browser leaves it empty
                    shown = host[:80]
                    message = (
                        f"This server is not called {shown!r}; start it with `--allowed-hosts` to let that name in"
                    )
                    await error_response(Forbidden(message), scope)(scope, receive, send)
                    return
        await self._app(scope, receive, send)


class Cors:
    """Lets pages of the allowed origins call, refuses the others, and answers preflights without a key.

    Where any page may call, only named ones may do so with credentials, or change settings of a server without a key.
    """

    def __init__(self, app: ASGIApp, origins: Iterable[str], prefix: str = "", *, has_keys: bool = False) -> None:
        self._app = app
        self._origins = Origins(origins)
        self._prefix = prefix
        self._has_keys = has_keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        extra: RawHeaders = [(b"vary", b"Origin")] if self._origins.has_names else []
        if origin is not None:
            refusal = self._refusal(scope, headers, origin)
            if refusal is not None:
                await error_response(refusal, scope)(scope, receive, with_headers(send, extra))
                return
            extra += self._allowing(origin, headers.get("host", ""))
        if scope["method"] == "OPTIONS":
            await send({"type": "http.response.start", "status": 200, "headers": [*_preflight(headers), *extra]})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, with_headers(send, extra) if extra else send)

    def _refusal(self, scope: Scope, headers: Headers, origin: str) -> Forbidden | None:
        if self._origins.names(origin) or is_same_origin(origin, headers.get("host", "")):
            return None
        if not self._origins.is_any:
            return Forbidden("Pages of this origin may not call; start the server with `--cors-origins` to let them")
        method = headers.get("access-control-request-method", "") if scope["method"] == "OPTIONS" else scope["method"]
        path = scope["path"].removeprefix(self._prefix)
        if not self._has_keys and method == "POST" and SETTINGS.fullmatch(path):
            return Forbidden(
                f"Pages of other origins may not change {path} of a server without a key; "
                "start it with `--api-key`, or name the origin with `--cors-origins`"
            )
        return None

    def _allowing(self, origin: str, host: str) -> RawHeaders:
        if self._origins.names(origin):
            value = origin.encode("latin-1")
            return [(b"access-control-allow-origin", value), (b"access-control-allow-credentials", b"true")]
        return [(b"access-control-allow-origin", b"*")] if self._origins.is_any else []


def _preflight(headers: Headers) -> RawHeaders:
    asked = headers.get("access-control-request-headers", "")
    allowed = f"{HEADERS}, {asked}" if FIELD_NAMES.fullmatch(asked) else HEADERS
    return [
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", allowed.encode("latin-1")),
        (b"access-control-max-age", b"600"),
        (b"content-length", b"0"),
        (b"vary", b"Access-Control-Request-Headers"),
    ]
