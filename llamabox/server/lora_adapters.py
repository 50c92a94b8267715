"""GET and POST /lora-adapters: which adapters there are, and the scales of requests that do not say (contract 2.8)."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from llamabox.errors import NotSupported
from llamabox.server.endpoint import Exchange
from llamabox.server.lora_fields import parse_lora
from llamabox.server.responses.json import JsonResponse
from llamabox.server.services import services_of
from llamabox.workers.text_config import ModelInfo

BODY = "adapters"
"""What the array that is the body of the POST is called in messages."""


async def lora_adapters(request: Request) -> Response:
    """One object an adapter, with the scale that holds now."""
    services = services_of(request)
    info = services.model()
    _check_any(info)
    scales = dict(services.config.defaults.lora)
    return JsonResponse(
        [{"id": i, "path": one["path"], "scale": scales.get(i, 0.0), **one} for i, one in enumerate(info.lora)]
    )


async def set_lora_adapters(exchange: Exchange) -> Response:
    """Adapters that are not named get scale 0. Requests that are under way keep theirs."""
    _check_any(exchange.info)
    chosen = parse_lora(BODY, exchange.body[BODY], len(exchange.info.lora))
    services = exchange.services
    # Here and nowhere else: each request carries its set, so a worker that is started again need not be told.
    services.config = replace(services.config, defaults=replace(services.config.defaults, lora=chosen))
    return JsonResponse({"success": True})


def _check_any(info: ModelInfo) -> None:
    if not info.lora:
        raise NotSupported("This server does not support LoRA adapters. Start it with `--lora`")
