"""Long arrays are made and sent a part at a time, and others have a turn in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from llamabox.server.http.json import PIECE, JsonArray


async def sent(response: JsonArray) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        raise AssertionError("a reply reads nothing")

    await response({"type": "http"}, receive, send)
    return messages


async def numbers(n: int, size: int = 1) -> AsyncIterator[bytes]:
    for i in range(n):
        yield orjson.dumps([i] * size)


@pytest.mark.parametrize("n", [0, 1, 3, 5000])
def test_it_is_the_array_of_its_items_in_whatever_frame(n: int) -> None:
    start, *bodies = asyncio.run(sent(JsonArray(numbers(n), {"x-a": "b"}, head=b'{"a":[', tail=b'],"n":1}')))
    assert (b"x-a", b"b") in start["headers"]
    assert not [value for name, value in start["headers"] if name == b"content-length"]
    assert [body.get("more_body", False) for body in bodies] == [True] * (len(bodies) - 1) + [False]
    assert orjson.loads(b"".join(body["body"] for body in bodies)) == {"a": [[i] for i in range(n)], "n": 1}


def test_parts_are_short_and_others_run_in_between() -> None:
    n_turns = 0

    async def other() -> None:
        nonlocal n_turns
        while True:
            n_turns += 1
            await asyncio.sleep(0)

    async def scene() -> list[dict[str, Any]]:
        running = asyncio.create_task(other())
        try:
            return await sent(JsonArray(numbers(200, 10_000)))
        finally:
            running.cancel()

    bodies = [message["body"] for message in asyncio.run(scene())[1:]]
    assert sum(map(len, bodies)) > 50 * PIECE
    assert max(map(len, bodies)) < 2 * PIECE
    assert n_turns >= 200
