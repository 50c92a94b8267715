"""Responses that are kept for later requests, and the conversations that go on from them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import orjson

from llamabox.checks import wrong
from llamabox.errors import LlamaboxError, NotFound
from llamabox.server.api.openai.responses.items import Item
from llamabox.server.api.openai.responses.output import new_id
from llamabox.server.api.openai.responses.storage.log import EventLog
from llamabox.server.api.openai.responses.writer import ResponseWriter
from llamabox.server.http.shelf import Shelf

PREFIXES = {"function_call": "fc", "custom_tool_call": "ctc", "reasoning": "rs", "message": "msg", "compaction": "cmp"}
"""Of the ids of items, by their types."""


@dataclass(slots=True, eq=False)
class StoredResponse:
    """A response with all that was said before it. Belongs to the event loop."""

    asker: str
    history: tuple[Item, ...]  # what went before its own input
    given: tuple[Item, ...]  # its own input
    writer: ResponseWriter
    log: EventLog = field(default_factory=EventLog)
    task: asyncio.Task[None] | None = None  # computes it, where it runs in the background
    is_dropped: bool = False  # it is not to be kept again

    @property
    def conversation(self) -> tuple[Item, ...]:
        """All items up to its end."""
        return (*self.history, *self.given, *self.writer.object()["output"])

    def measure(self) -> int:
        """Bytes that it holds. What several responses of a conversation share counts for each of them."""
        return len(orjson.dumps([*self.conversation, self.writer.object()])) + self.log.n_bytes


class Responses:
    """The responses that one asker may see."""

    def __init__(self, shelf: Shelf[object], asker: str) -> None:
        self._shelf = shelf
        self._asker = asker

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._shelf.max_bytes > 0

    def keep(self, stored: StoredResponse) -> bool:
        """Keep it as it is now. False: it is too large, or was dropped."""
        if stored.is_dropped:
            return False
        return self._shelf.put(self._asker, stored.writer.object()["id"], stored, stored.measure())

    def find(self, response_id: str) -> StoredResponse:
        """Raises NotFound."""
        found = self._shelf.get(self._asker, response_id)
        if not isinstance(found, StoredResponse):
            raise NotFound(f"there is no response {response_id[:80]!r}: it was not stored, or made room for others")
        return found

    def previous(self, response_id: str) -> StoredResponse:
        """The response that a conversation goes on from. Raises InvalidRequest."""
        field = "previous_response_id"
        if not self.is_on:
            raise wrong(field, "nothing is stored by this server; start it with --responses-store MIB")
        try:
            found = self.find(response_id)
        except NotFound as error:
            raise wrong(field, error.message) from error
        if (status := found.writer.object()["status"]) not in ("completed", "incomplete"):
            raise wrong(field, f"the response is {status}; only one that has ended can be gone on from")
        return found

    def item(self, item_id: str) -> Item | None:
        """An item of any conversation that is kept."""
        for stored in self._shelf.all_of(self._asker):
            if isinstance(stored, StoredResponse):
                for item in stored.conversation:
                    if item.get("id") == item_id:
                        return item
        return None

    def drop(self, response_id: str) -> None:
        """Forget a response, which ends if it runs. Raises NotFound."""
        stored = self.find(response_id)
        stored.is_dropped = True
        if stored.task is not None:
            stored.task.cancel()
        self._shelf.drop(self._asker, response_id)


async def recorded(
    chunks: AsyncGenerator[bytes, None], stored: StoredResponse, responses: Responses
) -> AsyncGenerator[bytes, None]:
    """The chunks of a response, which is kept before its last one goes out: the next request may follow at once."""
    async with aclosing(chunks):
        async for chunk in chunks:
            stored.log.add(chunk)
            if stored.writer.is_over:
                stored.log.end()
                responses.keep(stored)
            yield chunk


async def in_background(chunks: AsyncGenerator[bytes, None], stored: StoredResponse, responses: Responses) -> None:
    """Compute a response that nobody waits for."""
    try:
        async for _ in recorded(chunks, stored, responses):
            pass
    except LlamaboxError as error:
        stored.log.add(stored.writer.failed(error))
    except asyncio.CancelledError:
        stored.writer.cancel()
        raise
    finally:
        if not stored.log.is_over:
            stored.log.end()
            responses.keep(stored)


def with_ids(items: Iterable[Item]) -> tuple[Item, ...]:
    """The items, each with an id and a status, and messages with parts, as they are listed later."""
    return tuple(_listed(item) for item in items)


def _listed(item: Item) -> Item:
    kind = str(item.get("type", "message"))
    told = {"id": new_id(PREFIXES.get(kind, "item")), "type": kind, **item}
    if kind == "message" and isinstance(content := item.get("content"), str):
        part: dict[str, Any] = {"type": "input_text", "text": content}
        if item.get("role") == "assistant":
            part = {"type": "output_text", "text": content, "annotations": []}
        told["content"] = [part]
    if kind not in ("reasoning", "compaction"):
        told.setdefault("status", "completed")
    return told
