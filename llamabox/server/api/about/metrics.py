"""GET /metrics, with `--metrics`: for Prometheus, answered while the worker restarts as well."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamabox.errors import NotSupported
from llamabox.server.hosted.site import site_of


async def metrics(request: Request) -> Response:
    """The text of docs/api.md, Metrics."""
    site = site_of(request)
    if not site.listen.enable_metrics:
        raise NotSupported("This server does not support metrics endpoint. Start it with `--metrics`")
    headers = {"content-type": "text/plain; version=0.0.4", "process-start-time-unix": str(site.started)}
    return Response(site.hosted.metrics.scrape(), headers=headers)
