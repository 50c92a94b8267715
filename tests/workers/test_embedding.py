"""Passages go to the worker as vectors come back, each once, and come out in order."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.engine.events import Vector
from llamabox.errors import Unavailable
from llamabox.workers.embedding import MAX_AHEAD, PART, PART_BYTES, Embedding
from llamabox.workers.protocol import Embed

EMPTY = Embed(request_id="e", first=0, n_left=0, prompts=[])


class FakeWorker:
    """Answers what was sent, in an order of its own."""

    def __init__(self, seed: int = 0) -> None:
        self.sent: list[Embed] = []
        self.ends: list[bool] = []
        self._draw = random.Random(seed)
        self._open: list[int] = []
        self.n_most = 0

    def embed(self, prompts: list[list[str | int]]) -> Embedding:
        return Embedding(EMPTY, prompts, self.send, lambda _, completed: self.ends.append(completed))

    def send(self, part: Embed) -> None:
        self.sent.append(part)
        self._open += range(part.first, part.first + len(part.prompts))
        self.n_most = max(self.n_most, len(self._open))

    def answer(self, embedding: Embedding, n: int) -> None:
        self._draw.shuffle(self._open)
        for _ in range(min(n, len(self._open))):
            index = self._open.pop()
            embedding.push(Vector("e", index, 1, str(index).encode()))


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


@given(st.integers(1, 3 * MAX_AHEAD), st.integers(1, 200), st.integers(0, 2**32))
def test_every_vector_comes_out_in_order_and_what_waits_is_bounded(n: int, at_once: int, seed: int) -> None:
    async def run() -> None:
        worker = FakeWorker(seed)
        prompts: list[list[str | int]] = [[f"text {i}"] for i in range(n)]
        embedding = worker.embed(prompts)
        answer = asyncio.create_task(embedding.all())
        while not answer.done():
            await settle()
            worker.answer(embedding, at_once)
        vectors = await answer
        assert [vector.data for vector in vectors] == [str(i).encode() for i in range(n)]
        assert [prompt for part in worker.sent for prompt in part.prompts] == prompts
        assert [part.first for part in worker.sent] == list(
            itertools.accumulate((len(part.prompts) for part in worker.sent[:-1]), initial=0)
        )
        assert worker.n_most < MAX_AHEAD + PART
        assert worker.sent[0].n_left == n
        assert worker.ends == [True]
        assert embedding.in_flight == []

    asyncio.run(run())


def test_long_texts_go_a_few_at_a_time() -> None:
    async def run() -> None:
        worker = FakeWorker()
        embedding = worker.embed([["x" * PART_BYTES, 1], ["y" * PART_BYTES], ["z"], ["z"]])
        task = asyncio.create_task(embedding.all())
        await settle()
        assert [len(part.prompts) for part in worker.sent] == [1, 2, 1]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert worker.ends == [False], "a caller that is cancelled aborts it"

    asyncio.run(run())


def test_a_failure_is_raised_once_and_ends_it() -> None:
    async def run() -> None:
        worker = FakeWorker()
        embedding = worker.embed([["a"], ["b"]])
        answer = asyncio.create_task(embedding.all())
        await settle()
        worker.answer(embedding, 1)
        embedding.fail(Unavailable("it died"))
        embedding.push(Vector("e", 0, 1, b""))  # what crossed it is not taken
        with pytest.raises(Unavailable, match="it died"):
            await answer
        assert worker.ends == [False]

    asyncio.run(run())


def test_a_worker_that_takes_nothing_fails_it() -> None:
    async def run() -> None:
        def refuse(part: Embed) -> None:
            raise Unavailable("not now")

        ends: list[bool] = []
        embedding = Embedding(EMPTY, [["a"]], refuse, lambda _, completed: ends.append(completed))
        with pytest.raises(Unavailable, match="not now"):
            await embedding.all()
        assert ends == [False]

    asyncio.run(run())
