"""A client that goes away: the watch on its connection.

Hypercorn swallows write errors, so `http.disconnect` is the only sign that a client went away, and it comes to the
next reader: two readers would race for it. Each request therefore has one at a time, first for its body
(request_body.py), then as a watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from starlette.types import Message, Receive, Send

from llamabox.server.http.record import RequestRecord


class ClientGone(Exception):
    """The client is gone, so there is no reply. Never leaves the server package."""


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


def impatient(send: Send, seconds: float, record: RequestRecord) -> Send:
    """`send`, but ClientGone where one message is not taken within `seconds`.

    For HTTP/2, where a client closes its window instead of the socket's: no bytes lie unsent that listener.py could
    see. It costs a timer for each message.
    """

    async def wrapped(message: Message) -> None:
        try:
            async with asyncio.timeout(seconds):
                await send(message)
        except TimeoutError:
            record.cut(f"the client is too slow: its window stayed shut for {seconds:g} s")
            raise ClientGone from None

    return wrapped


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
