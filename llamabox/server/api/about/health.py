"""GET /health and /v1/health: public, and answered by this process alone whatever the workers do."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamabox.server.http.json import JsonResponse


async def health(request: Request) -> Response:
    """Gets here only when the model is ready: Gate answers 503 before."""
    return JsonResponse({"status": "ok"})
