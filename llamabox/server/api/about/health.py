"""GET / and the public /health and /v1/health: answered by this process alone, also while a worker is busy."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from llamabox.server.http.json import JsonResponse


async def health(request: Request) -> Response:
    """200. Called only when the model is ready: Gate answers 503 before."""
    return JsonResponse({"status": "ok"})


async def root(request: Request) -> Response:
    """200 for clients that look whether anybody is there before they ask. There is no web page."""
    return PlainTextResponse("llamabox is running\n")
