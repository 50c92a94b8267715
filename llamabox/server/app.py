"""The Starlette app of a site: routes, middleware and error handlers put together."""

from __future__ import annotations

from collections.abc import Sequence

from starlette import routing
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

import llamabox
from llamabox.errors import LlamaboxError
from llamabox.server.hosted.abilities import refusal
from llamabox.server.hosted.model import Hosted
from llamabox.server.hosted.site import Site, site_of
from llamabox.server.http.errors import on_fault, on_http_exception, on_llamabox_error
from llamabox.server.http.middleware.chain import Auth, Gate, RequestId
from llamabox.server.http.middleware.pages import Cors, HostCheck
from llamabox.server.listening.config import ListenConfig
from llamabox.server.routes import ROUTES, Route, error_words


def create_app(listen: ListenConfig, hosted: Hosted) -> Starlette:
    """The whole HTTP side over one model. Starts nothing; `app.state.site` is what run.py steers it by."""
    site = Site(listen, hosted)
    prefix = listen.api_prefix
    app = Starlette(
        routes=[
            routing.Route(prefix + path, Endpoint(rows), methods=[row.method for row in rows])
            for path, rows in by_path().items()
        ],
        middleware=[
            Middleware(RequestId, server=f"llamabox/{llamabox.__version__}", prefix=prefix, words=error_words),
            Middleware(HostCheck, allowed=listen.allowed_hosts),
            Middleware(Cors, origins=listen.cors_origins, prefix=prefix, has_keys=bool(listen.api_keys)),
            Middleware(Auth, keys=listen.api_keys, prefix=prefix),
            Middleware(Gate, refusal=site.refusal, lifecycle=site.lifecycle, prefix=prefix),
        ],
        exception_handlers={
            LlamaboxError: on_llamabox_error,
            HTTPException: on_http_exception,
            Exception: on_fault,
        },
    )
    app.router.redirect_slashes = False
    app.state.site = site
    return app


class Endpoint:
    """An ASGI app of one path: the first row of the method whose need the model meets."""

    def __init__(self, rows: Sequence[Route]) -> None:
        self._rows = rows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        rows = [row for row in self._rows if row.method == method]
        await chosen(rows, site_of(HTTPConnection(scope)).hosted).app(scope, receive, send)


def chosen(rows: Sequence[Route], hosted: Hosted) -> Route:
    """The row that serves this model. Raises WrongModel or NotSupported, which say why there is none."""
    unmet = []
    for row in rows:
        if row.needs is None or row.needs in hosted.abilities:
            return row
        unmet.append(row.needs)
    ruled_out = hosted.ruled_out
    ability = next((ability for ability in unmet if ability not in ruled_out), unmet[0])
    raise refusal(ability, by_kind=ability in ruled_out)


def by_path() -> dict[str, list[Route]]:
    """The rows of each path, in the order of the table."""
    found: dict[str, list[Route]] = {}
    for row in ROUTES:
        for path in row.paths:
            found.setdefault(path, []).append(row)
    return found
