"""Pure ASGI middleware, outermost first: RequestId, HostCheck and Cors (of pages.py), Auth, Gate.

Each adds one thing to every reply.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llamabox.errors import AuthenticationFailed, Unavailable
from llamabox.log import entries as log
from llamabox.server.http.disconnect import ClientGone
from llamabox.server.http.errors import WORDS, ErrorWords, error_response
from llamabox.server.http.lifecycle import Lifecycle
from llamabox.server.http.record import KEY, RUNNING, RequestRecord, line, record_of
from llamabox.server.listening.arrival import arrival_of

logger = logging.getLogger(__name__)

HEALTH = ("/health", "/v1/health")
METRICS = "/metrics"

REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
"""The form of an X-Request-ID that a client may choose: it ends up in our log."""

FULL = "the server has as many connections as it takes; try again later"

RawHeaders = list[tuple[bytes, bytes]]


def health_paths(prefix: str) -> frozenset[str]:
    return frozenset(prefix + path for path in HEALTH)


def with_headers(send: Send, extra: RawHeaders, record: RequestRecord | None = None) -> Send:
    """`send` that adds these to the head of the reply, and notes its status."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            if record is not None:
                record.status = message["status"]
                extra.extend((b"warning", warning.encode("latin-1")) for warning in record.warnings)
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return wrapped


class RequestId:
    """Names the request, says who answers, and writes one line about each when it is over.

    The last place that ClientGone reaches: Hypercorn then finds no reply and closes the connection.
    """

    def __init__(
        self,
        app: ASGIApp,
        server: str,
        prefix: str = "",
        words: Callable[[str], ErrorWords | None] = lambda path: None,
    ) -> None:
        """`words` knows how errors are told at a path, without the prefix; None: in ours."""
        self._app = app
        self._words = words
        self._prefix = prefix
        self._health = health_paths(prefix)
        self._by_the_clock = self._health | {prefix + METRICS}
        self._server = server.encode("latin-1")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        now_us = time.time_ns() // 1000
        given = Headers(scope=scope).get("x-request-id", "")
        record = RequestRecord(given if REQUEST_ID.fullmatch(given) else str(now_us), now_us)
        scope[KEY] = record
        running = RUNNING.get(set())
        running.add(record)
        extra: RawHeaders = [(b"server", self._server)]
        is_health = scope["path"] in self._health
        if not is_health:
            extra.append((b"x-request-id", record.request_id.encode("latin-1")))
            extra.append((b"x-request-accepted-at", b"%d" % now_us))
        words = self._words(scope["path"].removeprefix(self._prefix))
        if words is not None:
            scope[WORDS] = words
            extra.append((words.id_header, record.request_id.encode("latin-1")))
        try:
            await self._app(scope, receive, with_headers(send, extra, record))
        except ClientGone:
            pass
        finally:
            running.discard(record)
            is_usual = scope["path"] in self._by_the_clock and not record.cut_off
            level = log.MORE if is_usual else logging.INFO
            if logger.isEnabledFor(level):
                facts = record.facts(scope["method"], scope["path"])
                logger.log(level, "%s", line(facts), extra={log.FACTS: facts})


class Auth:
    """Lets in requests with a key, as `Authorization: Bearer KEY` or `X-Api-Key: KEY`; the health needs none."""

    def __init__(self, app: ASGIApp, keys: Iterable[str], prefix: str = "") -> None:
        self._app = app
        self._health = health_paths(prefix)
        self._keys = [key.encode("utf-8", "surrogateescape") for key in keys]
        salt = secrets.token_bytes(16)  # so that nobody can try keys against what stands for them
        self._askers = [hashlib.blake2b(key, digest_size=8, salt=salt).hexdigest() for key in self._keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._keys or scope["path"] in self._health:
            await self._app(scope, receive, send)
            return
        asker = self._asker(Headers(scope=scope))
        if asker is None:
            await error_response(AuthenticationFailed("Invalid API Key"), scope)(scope, receive, send)
            return
        record_of(scope).asker = asker
        await self._app(scope, receive, send)

    def _asker(self, headers: Headers) -> str | None:
        """What stands for the key that the client shows; None where it shows none that is right."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = [headers.get("x-api-key", "")]
        if scheme.lower() == "bearer":
            given.append(bearer.strip())
        # Every pair is compared, each in constant time: how long it takes tells nothing about the keys.
        matches = [[hmac.compare_digest(one.encode("latin-1"), key) for key in self._keys] for one in given]
        return next((asker for row in matches for asker, is_it in zip(self._askers, row, strict=True) if is_it), None)


class Gate:
    """While the model loads or restarts, or the server stops, every route is a 503. Counts the other requests."""

    def __init__(
        self, app: ASGIApp, refusal: Callable[[str], Unavailable | None], lifecycle: Lifecycle, prefix: str = ""
    ) -> None:
        """`refusal` says why a request of a path, without the prefix, is not let in now."""
        self._app = app
        self._refusal = refusal
        self._lifecycle = lifecycle
        self._prefix = prefix
        self._health = health_paths(prefix)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if arrival_of(scope).is_over() and scope["path"] not in self._health:
            response = error_response(Unavailable(FULL, retry_after=2), scope)
            if scope["http_version"] != "2":
                response.headers["connection"] = "close"
            await response(scope, receive, send)
            return
        refusal = self._refusal(scope["path"].removeprefix(self._prefix))
        if refusal is not None:
            await error_response(refusal, scope)(scope, receive, send)
            return
        with self._lifecycle:
            await self._app(scope, receive, send)
