"""GET and DELETE /v1/responses/{id}, POST …/cancel and GET …/input_items: responses that were stored."""

from __future__ import annotations

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from llamabox.checks import one_of, wrong
from llamabox.errors import InvalidRequest
from llamabox.server.api.openai.responses.storage.stored import Responses, StoredResponse
from llamabox.server.hosted.site import site_of
from llamabox.server.hosted.text import HostedText
from llamabox.server.http.disconnect import run_while_connected
from llamabox.server.http.json import JsonResponse
from llamabox.server.http.record import record_of
from llamabox.server.http.sse import EventStream

MAX_LISTED = 100
LISTED = 20
"""OpenAI's own bound and default of `limit`."""


class RetrieveRoute:
    """An ASGI app: a response as it is, or with `stream=true` its events behind `starting_after`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        stored = _stored(request)
        query = request.query_params
        if one_of("stream", query.get("stream", "false"), ("true", "false")) == "false":
            await JsonResponse(stored.writer.object())(scope, receive, send)
            return
        after = _whole(query, "starting_after", -1, -1, 1 << 31)
        interval = site_of(request).serving(HostedText).config.ping_interval
        stream = EventStream(stored.log.follow(after), ping_interval=interval)
        await run_while_connected(receive, stream(scope, _nobody_receives, send))


async def delete_response(request: Request) -> Response:
    """`{"id", "object": "response", "deleted": true}`. One that runs ends."""
    response_id = request.path_params["id"]
    _responses(request).drop(response_id)
    return JsonResponse({"id": response_id, "object": "response", "deleted": True})


async def cancel_response(request: Request) -> Response:
    """End a response that runs in the background. One that has ended stays as it is."""
    stored = _stored(request)
    if stored.task is None:
        raise InvalidRequest('only a response with "background": true can be cancelled; close the connection of others')
    stored.writer.cancel()
    stored.task.cancel()
    return JsonResponse(stored.writer.object())


async def input_items(request: Request) -> Response:
    """The items that a response was made of, those of earlier responses among them, the last one first."""
    stored, query = _stored(request), request.query_params
    items = [*stored.history, *stored.given]
    if one_of("order", query.get("order", "desc"), ("asc", "desc")) == "desc":
        items.reverse()
    limit = _whole(query, "limit", LISTED, 1, MAX_LISTED)
    if (after := query.get("after")) is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise wrong("after", f"{after[:80]!r} is none of the items")
        items = items[ids.index(after) + 1 :]
    page = items[:limit]
    return JsonResponse(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else "",
            "last_id": page[-1]["id"] if page else "",
            "has_more": len(items) > limit,
        }
    )


def _responses(request: Request) -> Responses:
    return Responses(site_of(request).serving(HostedText).responses, record_of(request.scope).asker)


def _stored(request: Request) -> StoredResponse:
    return _responses(request).find(request.path_params["id"])


def _whole(query: QueryParams, field: str, default: int, low: int, high: int) -> int:
    text = query.get(field)
    if text is None:
        return default
    if not text.removeprefix("-").isdecimal() or not low <= int(text) <= high:
        raise wrong(field, f"must be a whole number between {low} and {high}, not {text[:40]!r}")
    return int(text)


async def _nobody_receives() -> Message:
    raise AssertionError("a reply reads the connection; only disconnect.py may")
