"""GET and POST /lora-adapters: the adapters and their scales by default (docs/api.md, LoRA adapters)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llamabox.checks import parse_body
from llamabox.server.fields.lora import parse_lora
from llamabox.server.hosted.exchange import serve_body
from llamabox.server.hosted.model import Hosted
from llamabox.server.hosted.site import site_of
from llamabox.server.http.json import JsonResponse
from llamabox.server.http.request_body import Lease

BODY = "adapters"
"""The name of the POST's array in error messages."""


async def lora_adapters(request: Request) -> Response:
    """One object an adapter, with the scale that holds now."""
    hosted = site_of(request).hosted
    scales = dict(hosted.defaults.lora)
    adapters = enumerate(hosted.info.lora)
    return JsonResponse([{"id": i, "path": one["path"], **one, "scale": scales.get(i, 0.0)} for i, one in adapters])


class LoraScales:
    """An ASGI app that sets the scales. Its body is an array."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        site = site_of(Request(scope))

        async def answer(raw: bytearray, lease: Lease) -> Response:
            return _set(site.hosted, raw)

        await serve_body(site, answer, scope, receive, send)


def _set(hosted: Hosted, raw: bytearray) -> Response:
    """Adapters that are not named get scale 0. Requests that are under way keep theirs."""
    chosen = parse_lora(BODY, parse_body(raw, BODY)[BODY], len(hosted.info.lora))
    hosted.set_lora(chosen)
    return JsonResponse({"success": True})
