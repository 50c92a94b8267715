"""The request's side of ASGI: the one reader of receive().

Hypercorn swallows write errors, so `http.disconnect` is the only sign that a client went away, and it comes to whoever
reads next: two readers would race for it. Each request therefore has one at a time, first for its body, then as a
watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from starlette.types import Message, Receive, Scope, Send

from llamabox.errors import BodyTooLarge, InvalidRequest


class ClientGone(Exception):
    """Nobody waits for the reply any more, so there is none. Never crosses the server package."""


async def read_body(scope: Scope, receive: Receive, *, limit: int, gap: float, seconds: float) -> bytearray:
    """The whole body: at most `limit` bytes, at most `gap` seconds between two pieces, at most `seconds` in all.

    Raises BodyTooLarge (at once where the header says so), InvalidRequest for a client that sends too slowly,
    ClientGone.
    """
    declared = _content_length(scope)
    if declared is not None and declared > limit:
        raise _too_large(limit)
    time = asyncio.get_running_loop().time
    deadline = time() + seconds  # else a byte now and then would keep a connection for ever
    body = bytearray()  # not a list: millions of chunks of one byte would take forty times their size
    more = True
    while more:
        try:
            async with asyncio.timeout_at(min(time() + gap, deadline)):
                message = await receive()
        except TimeoutError:
            if time() >= deadline:
                raise InvalidRequest(f"the request body did not arrive within {seconds:g} seconds") from None
            raise InvalidRequest(f"the request body stopped arriving for {gap:g} seconds") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return body


async def run_while_connected(receive: Receive, work: Coroutine[None, None, None]) -> None:
    """Runs `work` to its end, or cancels it when the client goes away. Raises what it raises, or ClientGone."""
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_until_disconnect(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()
        if not working.done():
            working.cancel()
        await asyncio.wait((working, watching))
    if working.cancelled():
        raise ClientGone
    working.result()


def impatient(send: Send, seconds: float) -> Send:
    """`send`, but ClientGone where one message is not taken within `seconds`.

    For HTTP/2, where a client closes its window instead of the socket's: no bytes lie unsent that listener.py could
    see. It costs a timer for each message.
    """

    async def wrapped(message: Message) -> None:
        try:
            async with asyncio.timeout(seconds):
                await send(message)
        except TimeoutError:
            raise ClientGone from None

    return wrapped


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _content_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request body is larger than the {limit} bytes allowed")
