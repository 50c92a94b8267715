"""GET and POST /lora-adapters: the adapters and their scales by default (docs/api.md, LoRA adapters)."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llamabox.checks import parse_body
from llamabox.errors import NotSupported
from llamabox.server.fields.lora import parse_lora
from llamabox.server.hosted.exchange import serve_body
from llamabox.server.hosted.services import Services, any_services
from llamabox.server.http.json import JsonResponse
from llamabox.server.http.request_body import Lease

BODY = "adapters"
"""The name of the POST's array in error messages."""


class LoraAdapters:
    """An ASGI app: GET tells one object an adapter, with the scale that holds now; POST sets the scales."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = any_services(Request(scope))
        if not services.model().lora:
            raise NotSupported("This server does not support LoRA adapters. Start it with `--lora`")
        if scope["method"] != "POST":
            await _listed(services)(scope, receive, send)
            return

        async def answer(raw: bytearray, lease: Lease) -> Response:
            return _set(services, raw)

        await serve_body(services, answer, scope, receive, send)


def _listed(services: Services) -> Response:
    scales = dict(services.defaults.lora)
    adapters = enumerate(services.model().lora)
    return JsonResponse([{"id": i, "path": one["path"], **one, "scale": scales.get(i, 0.0)} for i, one in adapters])


def _set(services: Services, raw: bytearray) -> Response:
    """Adapters that are not named get scale 0. Requests that are under way keep theirs."""
    chosen = parse_lora(BODY, parse_body(raw, BODY)[BODY], len(services.model().lora))
    # Here and nowhere else: each request carries its set, so a worker that is started again need not be told.
    services.defaults = replace(services.defaults, lora=chosen)
    return JsonResponse({"success": True})
