"""Who is computed beside whom: the lanes over fake poolers, whose batches end when the test lets them."""

from __future__ import annotations

import queue
import threading
from typing import Any, cast

import pytest

from llamabox.engine.batch import Batch
from llamabox.engine.embedding.embedder import BRIEF, Embedder
from llamabox.engine.embedding.passages import BIG, Passage
from llamabox.engine.events import Vector
from llamabox.wire.signs.pulse import Pulse
from llamabox.workers.text.embedding.lanes import EXPECTING, LaneDone, Lanes
from tests.fakes import FakePooler, vector_of

N_ROWS = 16
WITHIN = 60.0
"""Seconds after which a test that waits for an event has failed."""


class HeldPooler(FakePooler):
    """Each batch waits for the test's word. Notes with how many threads it was computed."""

    def __init__(self) -> None:
        super().__init__(n_batch=N_ROWS, n_sequences=N_ROWS)
        self.begun: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.may_end = threading.Semaphore(0)
        self._n_threads = 0

    def adopt(self, n_threads: int) -> None:
        self._n_threads = n_threads

    def execute(self, batch: Batch) -> None:
        self.begun.put(self._n_threads)
        assert self.may_end.acquire(timeout=WITHIN)
        super().execute(batch)


class Bench:
    """Two lanes, and a clock that the test moves."""

    def __init__(self) -> None:
        self.poolers = [HeldPooler(), HeldPooler()]
        for pooler in self.poolers[1:]:  # one queue for all
            pooler.begun, pooler.may_end = self.poolers[0].begun, self.poolers[0].may_end
        self.embedder = Embedder(self.poolers[0], n_ctx=N_ROWS, n_rows=N_ROWS)
        self.computed: queue.SimpleQueue[LaneDone] = queue.SimpleQueue()
        self.now = 100.0
        anything: Any = self.poolers
        self.lanes = Lanes(
            self.embedder, anything, 2, self.computed.put, Pulse(cast(Any, None), 0.0), clock=lambda: self.now
        )
        self.jobs: list[list[str]] = []

    def submit(self, request_id: str, n_passages: int, n_tokens: int = 8) -> None:
        every = [Passage(request_id, i, (i + 1,) * n_tokens) for i in range(n_passages)]
        assert not self.embedder.submit(every, n_passages)
        self.lanes.begin()

    def n_threads(self) -> int:
        """Of the batch that began next; waits for it."""
        return self.poolers[0].begun.get(timeout=WITHIN)

    @property
    def n_begun(self) -> int:
        return len(self.lanes._begun)

    def computing(self) -> set[str]:
        """The requests whose batches have begun."""
        return {passage.request_id for job in self.lanes._begun for passage, _ in job.taken}

    def end_one(self) -> list[str]:
        """Lets a batch end; the requests that had a part in it."""
        self.poolers[0].may_end.release()
        one = self.computed.get(timeout=WITHIN)
        made = self.embedder.finish(one.job, one.outcome)
        for (passage, _), vector in zip(one.job.taken, made, strict=True):
            assert isinstance(vector, Vector)
            assert vector.data == vector_of(passage.tokens)
        self.lanes.finished(one.job)
        return sorted({passage.request_id for passage, _ in one.job.taken})

    def end_all(self) -> None:
        """Lets all that has begun end before anything else begins."""
        n_begun = self.n_begun
        self.poolers[0].may_end.release(n_begun)
        for one in [self.computed.get(timeout=WITHIN) for _ in range(n_begun)]:
            self.embedder.finish(one.job, one.outcome)
            self.lanes.finished(one.job)

    def close(self) -> None:
        while self.n_begun:
            self.end_one()
        self.lanes.close()


@pytest.fixture
def bench() -> Any:
    bench = Bench()
    yield bench
    bench.close()


def test_a_batch_that_is_alone_has_all_threads_and_two_have_one_each(bench: Bench) -> None:
    bench.submit("a", 1)
    assert bench.n_threads() == 2
    bench.submit("b", 2)
    assert bench.n_begun == 1, "not beside one that has all threads"
    bench.submit("c", 2)
    assert bench.end_one() == ["a"]
    assert [bench.n_threads(), bench.n_threads()] == [1, 1]


def test_a_small_request_waits_for_what_has_begun_and_then_has_all_threads(bench: Bench) -> None:
    bench.submit("bulk", 100)
    assert [bench.n_threads(), bench.n_threads()] == [1, 1]
    bench.submit("small", 1)
    assert bench.end_one() == ["bulk"]
    assert bench.n_begun == 1, "no other batch of the big one begins"
    assert bench.end_one() == ["bulk"]
    assert bench.n_threads() == 2
    assert bench.n_begun == 1
    assert bench.end_one() == ["small"]
    assert [bench.n_threads(), bench.n_threads()] == [1, 1]


def test_big_batches_are_brief_while_small_requests_are_expected(bench: Bench) -> None:
    bench.submit("bulk", 400, n_tokens=2)
    assert [len(job.batch) for job in bench.lanes._begun] == [N_ROWS, N_ROWS]
    bench.submit("small", 1)
    for _ in range(2):
        bench.end_one()
    assert bench.end_one() == ["small"]
    assert [len(job.batch) for job in bench.lanes._begun] == [N_ROWS // BRIEF, N_ROWS // BRIEF]
    bench.now += EXPECTING
    bench.end_all()
    assert {len(job.batch) for job in bench.lanes._begun} == {N_ROWS}


def test_a_brief_small_batch_takes_the_next_lane_beside_brief_big_ones(bench: Bench) -> None:
    bench.submit("bulk", 400, n_tokens=2)
    bench.submit("small", 1)
    bench.end_all()
    assert bench.end_one() == ["small"], "the batches that had begun were not brief"
    assert bench.n_begun == 2
    bench.submit("brief", 1, n_tokens=N_ROWS // BRIEF)
    assert bench.end_one() == ["bulk"]
    assert sorted(job.is_big for job in bench.lanes._begun) == [False, True], "not when both lanes are free"
    bench.submit("longer", 1, n_tokens=N_ROWS // BRIEF + 1)
    while "longer" not in bench.computing():
        bench.end_one()  # either of the two that have begun
    assert "bulk" not in bench.computing()


def test_small_requests_without_end_leave_a_big_one_its_part(bench: Bench) -> None:
    bench.submit("bulk", 4 * BIG)
    served: list[str] = []
    for i in range(200):
        bench.submit(f"small {i}", 1)
        served += bench.end_one()
    n_bulk = served.count("bulk")
    assert 5 < n_bulk < 100
