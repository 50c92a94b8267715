"""GET /slots, with `--slots`: what each slot does. No prompt text."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llamabox.engine.events import SlotView, StopType
from llamabox.errors import Unavailable
from llamabox.server.generation.settings import settings_object
from llamabox.server.hosted.site import site_of
from llamabox.server.hosted.slot_book import Page
from llamabox.server.hosted.text import HostedText
from llamabox.server.http.json import JsonResponse
from llamabox.wire.questions import LookAtSlots

IDLE, PROMPT, GENERATING = 0, 2, 4
"""llama-box's `state` numbers that a snapshot can tell apart."""


async def slots(request: Request) -> Response:
    """One object a slot; 503 with `fail_on_no_slot` when none is idle."""
    hosted = site_of(request).serving(HostedText)
    views = (await hosted.client.ask(LookAtSlots())).slots
    if "fail_on_no_slot" in request.query_params and all(view.request_id is not None for view in views):
        raise Unavailable("no slot available")
    return JsonResponse([_slot_object(hosted, view) for view in views])


def _slot_object(hosted: HostedText, view: SlotView) -> dict[str, Any]:
    page = hosted.slots.page(view.id_slot)
    is_processing = view.request_id is not None
    info = hosted.info
    n_ctx = info.n_ctx
    value = {
        "id": view.id_slot,
        "n_ctx": n_ctx,
        "speculative": bool(info.drafters) and (page is None or page.options.params.drafting.n_max != 0),
        "is_processing": is_processing,
        "id_task": -1 if view.request_id is None else int(view.request_id),
        "state": IDLE if not is_processing else GENERATING if view.n_decoded else PROMPT,
        "next_token": [_next_token(page, is_processing=is_processing, n_decoded=view.n_decoded)],
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


def _next_token(page: Page | None, *, is_processing: bool, n_decoded: int) -> dict[str, Any]:
    """llama-server's counters with llama-box's stop flags beside them. An idle slot has 0 and -1."""
    end = page.end if page is not None and not is_processing else None
    n_predict = page.options.params.n_predict if page is not None and is_processing else -1
    return {
        "has_next_token": is_processing,
        "has_new_line": end is not None and end.has_new_line,
        "n_remain": n_predict - n_decoded if n_predict >= 0 else -1,
        "n_decoded": n_decoded if is_processing else 0,
        "stopped_eos": end is not None and end.stop_type is StopType.EOS,
        "stopped_word": end is not None and end.stop_type is StopType.WORD,
        "stopped_limit": end is not None and end.stop_type is StopType.LIMIT,
        "stopping_word": "" if end is None else end.stopping_word,
    }
