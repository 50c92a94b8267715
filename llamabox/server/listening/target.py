"""A request target with a scheme and a host, as proxies get it and every server must take it (RFC 9112, 3.2.2)."""

from __future__ import annotations

import re
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

ABSOLUTE = re.compile(rb"https?://([^/?#@]+)(/[^?#]*)?", re.IGNORECASE)


class Targets:
    """Reads `GET http://host/path` as `GET /path` with that host, which counts more than the Host header."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = ABSOLUTE.fullmatch(scope["raw_path"]) if scope["type"] == "http" else None
        if found is not None:
            authority, path = found[1], found[2] or b"/"
            headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope["headers"] = [(b"host", authority), *headers]
            scope["raw_path"], scope["path"] = path, unquote(path.decode("ascii"))
        await self._app(scope, receive, send)
