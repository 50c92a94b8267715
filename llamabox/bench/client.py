"""One streamed request, with the time of every event. Speaks HTTP/1.1 through h11, one connection a request."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import h11
import orjson

from llamabox.errors import OptionsError

MAX_ERROR_TEXT = 400
READ_SIZE = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server under test. `prefix` is what its paths begin with."""

    host: str
    port: int
    prefix: str = ""
    api_key: str = ""
    timeout: float = 600.0  # seconds that a request may take
    tls: ssl.SSLContext | None = None


@dataclass(slots=True)
class RequestOutcome:
    """What became of one request. Times are those of `time.perf_counter()`, in seconds.

    `stamps` has an entry for each event that brought text. `n_tokens` is what the server's usage says, or the number of
    those events where it says nothing. `error` is empty where all went well.
    """

    sent: float
    done: float = 0.0
    stamps: list[float] = field(default_factory=list)
    n_tokens: int = 0
    n_prompt: int = 0
    n_cached: int = 0
    error: str = ""


def target(url: str, *, api_key: str = "", timeout: float = 600.0, insecure: bool = False) -> Target:
    """The server that `url` names. Raises OptionsError."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OptionsError(f"--url {url}: must be as http://127.0.0.1:8080")
    tls = None
    if parts.scheme == "https":
        tls = ssl.create_default_context()
        if insecure:
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return Target(
        host=parts.hostname,
        port=parts.port or (443 if tls else 80),
        prefix=parts.path.rstrip("/"),
        api_key=api_key,
        timeout=timeout,
        tls=tls,
    )


async def get(server: Target, path: str) -> Any:
    """The JSON at `path`. Raises OptionsError with a sentence where there is none."""
    try:
        async with asyncio.timeout(min(server.timeout, 30.0)):
            text = b"".join([chunk async for chunk in _exchange(server, "GET", path, b"")])
        return orjson.loads(text)
    except _Refused as refusal:
        raise OptionsError(f"{_shown(server)}{path} answers {refusal}") from None
    except (OSError, TimeoutError, h11.ProtocolError, ValueError) as error:
        raise OptionsError(f"{_shown(server)} does not answer: {error or type(error).__name__}") from error


async def stream(server: Target, path: str, body: dict[str, Any]) -> RequestOutcome:
    """Send `body` and read the streamed reply to its end. Never raises for what the server does."""
    outcome = RequestOutcome(sent=time.perf_counter())
    try:
        async with asyncio.timeout(server.timeout):
            async for event in _events(_exchange(server, "POST", path, orjson.dumps(body))):
                _take(outcome, event)
    except _Refused as refusal:
        outcome.error = str(refusal)
    except (OSError, TimeoutError, h11.ProtocolError, ValueError) as error:
        outcome.error = f"{type(error).__name__}: {error}"
    outcome.done = time.perf_counter()
    outcome.n_tokens = outcome.n_tokens or len(outcome.stamps)
    return outcome


class _Refused(Exception):
    """An answer that is not 200."""


async def _exchange(server: Target, method: str, path: str, body: bytes) -> AsyncIterator[bytes]:
    """Send a request and yield the reply's body as it comes."""
    reader, writer = await asyncio.open_connection(server.host, server.port, ssl=server.tls)
    try:
        connection = h11.Connection(h11.CLIENT)
        headers = [("Host", server.host), ("Connection", "close"), ("Content-Length", str(len(body)))]
        headers.append(("Content-Type", "application/json"))
        if server.api_key:
            headers.append(("Authorization", f"Bearer {server.api_key}"))
        request = connection.send(h11.Request(method=method, target=server.prefix + path, headers=headers))
        writer.write((request or b"") + (connection.send(h11.Data(data=body)) or b""))
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        status, refusal = 200, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(READ_SIZE))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data) and status == 200:
                yield bytes(event.data)
            elif isinstance(event, h11.Data):
                refusal += event.data
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                break
        if status != 200:
            raise _Refused(f"HTTP {status}: {refusal[:MAX_ERROR_TEXT].decode(errors='replace')}")
    finally:
        writer.close()


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON of each server-sent event."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and line.strip() != b"data: [DONE]":
                yield orjson.loads(line[5:])


def _take(outcome: RequestOutcome, event: dict[str, Any]) -> None:
    if "error" in event:
        outcome.error = outcome.error or str(event["error"])[:MAX_ERROR_TEXT]
    for choice in event.get("choices") or ():
        if choice.get("text") or (choice.get("delta") or {}).get("content"):
            outcome.stamps.append(time.perf_counter())
    usage = event.get("usage") or {}
    outcome.n_tokens = usage.get("completion_tokens", outcome.n_tokens)
    outcome.n_prompt = usage.get("prompt_tokens", outcome.n_prompt)
    outcome.n_cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", outcome.n_cached)


def _shown(server: Target) -> str:
    return f"{'https' if server.tls else 'http'}://{server.host}:{server.port}{server.prefix}"
