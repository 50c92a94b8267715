"""GET /slots, with `--slots`: what each slot does. No prompt text."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llamabox.errors import NotSupported, Unavailable
from llamabox.server.api.about.slot_book import next_token
from llamabox.server.generation.settings import settings_object
from llamabox.server.http.json import JsonResponse
from llamabox.server.services import TextServices, services_of

IDLE, PROMPT, GENERATING = 0, 2, 4
"""llama-box's `state` numbers that a snapshot can tell apart."""


async def slots(request: Request) -> Response:
    """One object a slot; 503 with `fail_on_no_slot` when none is idle."""
    services = services_of(request, TextServices)
    if not services.config.enable_slots:
        raise NotSupported("This server does not support slots endpoint. Start it with `--slots`")
    snapshot = await services.client.call("slots")
    if "fail_on_no_slot" in request.query_params and all(slot["is_processing"] for slot in snapshot):
        raise Unavailable("no slot available")
    return JsonResponse([_slot_object(services, slot) for slot in snapshot])


def _slot_object(services: TextServices, slot: dict[str, Any]) -> dict[str, Any]:
    page = services.slots.page(slot["id"])
    is_processing: bool = slot["is_processing"]
    value = {
        "id": slot["id"],
        "n_ctx": slot["n_ctx"],
        "speculative": False,
        "is_processing": is_processing,
        "id_task": -1 if slot["request_id"] is None else int(slot["request_id"]),
        "state": IDLE if not is_processing else GENERATING if slot["n_decoded"] else PROMPT,
        "next_token": [next_token(page, is_processing=is_processing, n_decoded=slot["n_decoded"])],
    }
    if page is None:
        return value
    settings = settings_object(page.options, services.model(), seed=page.seed)
    prompt_counts = {
        "n_prompt_tokens": page.n_prompt,
        "n_prompt_tokens_processed": page.n_prompt - page.n_cached,
        "n_prompt_tokens_cache": page.n_cached,
    }
    return {**value, **settings, "n_ctx": slot["n_ctx"], **prompt_counts, "params": settings}
