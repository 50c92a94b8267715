"""What every route with a JSON body has in common: read it, watch the connection, answer, or fail in our words."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from llamabox.errors import BodyTooLarge, InvalidRequest, LlamaboxError, ServerFault
from llamabox.server.disconnect import ClientGone, impatient, run_while_connected
from llamabox.server.params import present
from llamabox.server.record import RequestRecord, record_of
from llamabox.server.request_body import Lease, read_body
from llamabox.server.services import Services, TextServices, services_of
from llamabox.workers.text_config import ModelInfo

logger = logging.getLogger(__name__)

MAX_VALUES = 1_000_000
"""Values in one body: 64 MiB of `{},{},…` would be a gigabyte of Python objects."""

BOM = b"\xef\xbb\xbf"
"""What editors on Windows put before a text in UTF-8."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request with its body parsed, to a server with a language model."""

    services: TextServices
    info: ModelInfo
    body: dict[str, Any]  # without nulls
    record: RequestRecord
    scope: Scope  # of the ASGI request: its path and query


Handler = Callable[[Exchange], Awaitable[Response]]


class JsonRoute:
    """An ASGI app of one handler, served by `serve_body`."""

    def __init__(self, handler: Handler, *, needs_body: bool = True) -> None:
        """Without `needs_body` no body at all is an empty object."""
        self._handler = handler
        self._needs_body = needs_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = services_of(Request(scope), TextServices)

        def answer(raw: bytearray) -> Awaitable[Response]:
            body = parse_body(raw) if raw or self._needs_body else {}
            return self._handler(Exchange(services, services.model(), body, record_of(scope), scope))

        await serve_body(services, answer, scope, receive, send)


async def serve_body(
    services: Services, answer: Callable[[bytearray], Awaitable[Response]], scope: Scope, receive: Receive, send: Send
) -> None:
    """Reads the body and sends the answer to it. Its work is cancelled the moment the client is gone, before or amid
    the reply.

    `answer` raises for a body that is wrong, and what it gives back does not hold the body.
    """
    config = services.config
    gap = min(config.timeout, config.stall_timeout)
    with Lease(services.bodies) as lease:
        raw = await read_body(scope, receive, lease, limit=config.max_body, gap=gap, seconds=config.timeout)
        if scope["http_version"] == "2":
            send = impatient(send, gap, record_of(scope))
        work = _send_answer(services, answer, raw, lease, scope, send)
        del raw
        await run_while_connected(receive, work)


async def _send_answer(
    services: Services,
    answer: Callable[[bytearray], Awaitable[Response]],
    raw: bytearray,
    lease: Lease,
    scope: Scope,
    send: Send,
) -> None:
    record = record_of(scope)
    try:
        answering = answer(raw)
        del raw
        response = await answering
        lease.release()
        await response(scope, _nobody_receives, send)
        services.metrics.answered(record)
    except (ClientGone, LlamaboxError):
        raise
    except Exception as exc:
        logger.exception("request %s failed", record.request_id)
        raise ServerFault("the server failed at this request; its log says why") from exc


def parse_body(raw: bytes | bytearray, array_as: str | None = None) -> dict[str, Any]:
    """A JSON object without its nulls, whatever the content type says. InvalidRequest for anything else.

    With `array_as` it must be an array, which becomes the field of that name.
    """
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_VALUES:
        raise BodyTooLarge(f"the request body holds more than {MAX_VALUES} values")
    try:
        body = orjson.loads(memoryview(raw)[len(BOM) :] if raw.startswith(BOM) else raw)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequest(f"the request body is not valid JSON: {exc}") from exc
    if array_as is not None:
        if not isinstance(body, list):
            raise InvalidRequest("the request body must be a JSON array")
        return {array_as: body}
    if not isinstance(body, dict):
        raise InvalidRequest("the request body must be a JSON object")
    return present(body)


async def _nobody_receives() -> Message:
    raise AssertionError("a reply reads the connection; only disconnect.py may")
