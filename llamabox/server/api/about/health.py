"""GET /health and /v1/health: public, and answered by this process alone, also while a worker is busy."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamabox.server.http.json import JsonResponse


async def health(request: Request) -> Response:
    """200. Called only when the model is ready: Gate answers 503 before."""
    return JsonResponse({"status": "ok"})
