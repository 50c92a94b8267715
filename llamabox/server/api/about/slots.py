"""GET /slots, with `--slots`: what each slot does. No prompt text."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llamabox.engine.events import SlotView
from llamabox.errors import NotSupported, Unavailable
from llamabox.server.generation.settings import settings_object
from llamabox.server.hosted.services import TextServices, services_of
from llamabox.server.hosted.slot_book import next_token
from llamabox.server.http.json import JsonResponse
from llamabox.wire.questions import LookAtSlots

IDLE, PROMPT, GENERATING = 0, 2, 4
"""llama-box's `state` numbers that a snapshot can tell apart."""


async def slots(request: Request) -> Response:
    """One object a slot; 503 with `fail_on_no_slot` when none is idle."""
    services = services_of(request, TextServices)
    if not services.config.enable_slots:
        raise NotSupported("This server does not support slots endpoint. Start it with `--slots`")
    views = (await services.client.ask(LookAtSlots())).slots
    if "fail_on_no_slot" in request.query_params and all(view.request_id is not None for view in views):
        raise Unavailable("no slot available")
    return JsonResponse([_slot_object(services, view) for view in views])


def _slot_object(services: TextServices, view: SlotView) -> dict[str, Any]:
    page = services.slots.page(view.id_slot)
    is_processing = view.request_id is not None
    info = services.model()
    n_ctx = info.n_ctx
    value = {
        "id": view.id_slot,
        "n_ctx": n_ctx,
        "speculative": bool(info.drafters) and (page is None or page.options.params.drafting.n_max != 0),
        "is_processing": is_processing,
        "id_task": -1 if view.request_id is None else int(view.request_id),
        "state": IDLE if not is_processing else GENERATING if view.n_decoded else PROMPT,
        "next_token": [next_token(page, is_processing=is_processing, n_decoded=view.n_decoded)],
    }
    if page is None:
        return value
    settings = settings_object(page.options, info, seed=page.seed)
    prompt_counts = {
        "n_prompt_tokens": page.n_prompt,
        "n_prompt_tokens_processed": page.n_prompt - page.n_cached,
        "n_prompt_tokens_cache": page.n_cached,
    }
    return {**value, **settings, "n_ctx": n_ctx, **prompt_counts, "params": settings}
