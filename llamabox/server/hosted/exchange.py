"""The frame of every route with a JSON body: read it, watch the connection, answer, or fail in our words."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from llamabox.chat.template import RenderedChat
from llamabox.checks import parse_body
from llamabox.errors import LlamaboxError, ServerFault
from llamabox.server.hosted.site import Site, site_of
from llamabox.server.hosted.text import HostedText
from llamabox.server.http.disconnect import ClientGone, impatient, run_while_connected
from llamabox.server.http.record import RequestRecord, record_of
from llamabox.server.http.request_body import Lease, read_body
from llamabox.server.http.threads import off_loop
from llamabox.wire.text_config import ModelInfo

logger = logging.getLogger(__name__)

BYTES_A_VALUE = 64
"""JSON text that is read in a microsecond."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request with its body parsed, to a server with a language model."""

    hosted: HostedText
    info: ModelInfo
    body: dict[str, Any]  # without nulls
    record: RequestRecord
    scope: Scope  # of the ASGI request: its path and query
    lease: Lease  # what the request holds of the memory for bodies, and for the media that its body names
    chat: RenderedChat | None = None  # a large chat's messages, which are then not in the body


Handler = Callable[[Exchange], Awaitable[Response]]
Read = Callable[[HostedText, bytearray, Scope, Lease], Awaitable[Exchange]]
"""Reads a body into a handler's argument, which does not hold the body."""


async def read_json(hosted: HostedText, raw: bytearray, scope: Scope, lease: Lease) -> Exchange:
    """Any body that is a JSON object."""
    body = await off_loop(len(raw) // BYTES_A_VALUE, parse_body, raw)
    return Exchange(hosted, hosted.info, body, record_of(scope), scope, lease)


class JsonRoute:
    """An ASGI app of one handler, served by `serve_body`."""

    def __init__(self, handler: Handler, *, needs_body: bool = True, read: Read = read_json) -> None:
        """Without `needs_body` no body at all is an empty object."""
        self._handler = handler
        self._needs_body = needs_body
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        site = site_of(Request(scope))
        hosted = site.serving(HostedText)

        async def answer(raw: bytearray, lease: Lease) -> Response:
            exchange = await self._read(hosted, raw if raw or self._needs_body else bytearray(b"{}"), scope, lease)
            del raw
            return await self._handler(exchange)

        await serve_body(site, answer, scope, receive, send)


Answer = Callable[[bytearray, Lease], Awaitable[Response]]
"""Answers a body. The lease holds the body's bytes, and may be given more."""


async def serve_body(site: Site, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body and sends the answer to it. Its work is cancelled the moment the client is gone, before or amid
    the reply.

    `answer` raises for a body that is wrong. Its response does not hold the body.
    """
    limits = site.listen
    gap = min(limits.timeout, limits.stall_timeout)
    with Lease(site.bodies) as lease:
        raw = await read_body(scope, receive, lease, limit=limits.max_body, gap=gap, seconds=limits.timeout)
        if scope["http_version"] == "2":
            send = impatient(send, gap, record_of(scope))
        work = _send_answer(site, answer, raw, lease, scope, send)
        del raw
        await run_while_connected(receive, work)


async def _send_answer(
    site: Site,
    answer: Answer,
    raw: bytearray,
    lease: Lease,
    scope: Scope,
    send: Send,
) -> None:
    record = record_of(scope)
    try:
        answering = answer(raw, lease)
        del raw
        response = await answering
        lease.release_body()
        await response(scope, _nobody_receives, send)
        site.hosted.metrics.answered(record)
    except (ClientGone, LlamaboxError):
        raise
    except Exception as exc:
        logger.exception("request %s failed", record.request_id)
        raise ServerFault("the server failed at this request; its log says why") from exc


async def _nobody_receives() -> Message:
    raise AssertionError("a reply reads the connection; only disconnect.py may")
