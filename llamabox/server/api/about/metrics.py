"""GET /metrics, with `--metrics`: for Prometheus, answered while the worker restarts as well."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamabox.errors import NotSupported
from llamabox.server.hosted.services import any_services


async def metrics(request: Request) -> Response:
    """The text of docs/api.md, Metrics."""
    services = any_services(request)
    if not services.config.enable_metrics:
        raise NotSupported("This server does not support metrics endpoint. Start it with `--metrics`")
    headers = {"content-type": "text/plain; version=0.0.4", "process-start-time-unix": str(services.created)}
    return Response(services.metrics.scrape(), headers=headers)
