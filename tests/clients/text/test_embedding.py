"""A request's way to the worker in parts, and its vectors' way back, with a worker that is a list."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llamabox.clients.inbox import Ending
from llamabox.clients.text.embedding import MAX_AHEAD, PART, PART_BYTES, Embedding
from llamabox.engine.events import Vector
from llamabox.engine.request import PromptPart
from llamabox.errors import ServerFault, Unavailable
from llamabox.wire.text import Embed
from tests.clients.harness import DEADLINE

EMPTY = Embed(request_id="r", first=0, n_left=0, prompts=[], query="why?", field="documents")


class Worker:
    """What was sent, and what the client was told."""

    def __init__(self, prompts: list[list[PromptPart]]) -> None:
        self.sent: list[Embed] = []
        self.left: list[Ending] = []
        self.served: list[Embed] = []
        self.refuses = False
        self.embedding = Embedding(
            EMPTY, prompts, self.send, lambda _, ending: self.left.append(ending), self.served.append
        )

    def send(self, part: Embed) -> None:
        if self.refuses:
            raise Unavailable("not now")
        self.sent.append(part)

    def answer(self, *indices: int) -> None:
        for index in indices:
            self.embedding.push(Vector("r", index, 3, b"\0\0\0\0"))


def texts(n: int, size: int = 1) -> list[list[PromptPart]]:
    return [["x" * size] for _ in range(n)]


async def taken(embedding: Embedding) -> list[int]:
    return [vector.index for vector in await anext(embedding)]


def run(coroutine: Any) -> None:
    asyncio.run(asyncio.wait_for(coroutine, DEADLINE))


def test_vectors_come_in_any_order_and_all_sorts_them() -> None:
    async def scenario() -> None:
        worker = Worker(texts(3))
        waiting = asyncio.create_task(worker.embedding.all())
        await asyncio.sleep(0)
        worker.answer(2, 0)
        await asyncio.sleep(0)
        worker.answer(1)
        assert [vector.index for vector in await waiting] == [0, 1, 2]
        assert worker.left == [Ending.COMPLETED]
        assert worker.served == worker.sent

    run(scenario())


def test_parts_are_small_and_know_their_place() -> None:
    async def scenario() -> None:
        worker = Worker([*texts(PART + 1), *texts(2, PART_BYTES + 1)])
        reading = asyncio.create_task(taken(worker.embedding))
        await asyncio.sleep(0)
        assert [(part.first, len(part.prompts)) for part in worker.sent] == [(0, PART), (PART, 2), (PART + 2, 1)]
        assert {part.n_left for part in worker.sent} == {PART + 3}
        assert {(part.query, part.field) for part in worker.sent} == {("why?", "documents")}
        worker.answer(PART)
        assert await reading == [PART]
        assert worker.served == []
        worker.answer(PART + 1)
        assert worker.served == [worker.sent[1]]
        assert worker.embedding.in_flight == [worker.sent[0], worker.sent[2]]
        worker.embedding.abort()

    run(scenario())


def test_no_more_is_sent_than_the_consumer_has_room_for() -> None:
    async def scenario() -> None:
        worker = Worker(texts(3 * MAX_AHEAD))
        for n_taken in (0, 10, MAX_AHEAD):
            if n_taken:
                worker.answer(*range(n_taken - 10, n_taken))
            reading = asyncio.create_task(taken(worker.embedding))
            await asyncio.sleep(0)
            n_sent = sum(len(part.prompts) for part in worker.sent)
            assert n_sent <= n_taken + MAX_AHEAD + PART
            reading.cancel()
        worker.embedding.abort()

    run(scenario())


def test_a_failure_is_raised_and_nothing_is_sent_after_it() -> None:
    async def scenario() -> None:
        worker = Worker(texts(2 * MAX_AHEAD))
        waiting = asyncio.create_task(worker.embedding.all())
        await asyncio.sleep(0)
        n_sent = len(worker.sent)
        worker.embedding.fail(ServerFault("it broke"))
        worker.embedding.fail(ServerFault("again"))
        worker.answer(0)
        with pytest.raises(ServerFault, match="it broke"):
            await waiting
        assert worker.left == [Ending.FAILED]
        assert len(worker.sent) == n_sent
        assert worker.served == []

    run(scenario())


def test_a_worker_that_takes_nothing_is_an_error_of_the_request() -> None:
    async def scenario() -> None:
        worker = Worker(texts(1))
        worker.refuses = True
        with pytest.raises(Unavailable):
            await worker.embedding.all()
        assert worker.left == [Ending.FAILED]

    run(scenario())


def test_a_consumer_that_leaves_aborts_once() -> None:
    async def scenario() -> None:
        worker = Worker(texts(5))
        waiting = asyncio.create_task(worker.embedding.all())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        worker.embedding.abort()
        assert worker.left == [Ending.ABORTED]

    run(scenario())
