"""Batches of passages computed side by side: for a CPU and models that keep nothing, a context for each thread.

Threads that compute one batch together wait for each other at each of its hundreds of operations. A MiniLM on two cores
made 87 vectors a second of texts with 62 tokens by two threads a batch, and 97 by a batch for each thread.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llamabox.engine.embedding.embedder import Embedder, Job, Outcome, compute
from llamabox.errors import ServerFault, to_wire
from llamabox.wire.signs.pulse import Pulse
from llamabox.workers.escape import WatchedPool
from llamabox.workers.text.embedding.pooler import LlamaPooler

logger = logging.getLogger(__name__)

EXPECTING = 2.0
"""For so many seconds after a small request's batch another one is expected, and big requests' batches are brief."""


@dataclass(frozen=True, slots=True)
class LaneDone:
    """A lane's batch is done."""

    job: Job
    outcome: Outcome


class Lanes:
    """Computes an embedder's batches. All methods are the engine's thread's; `close` must come before the contexts'.

    No batch is begun before a lane is free for it: a request that comes meanwhile may have a better claim to that lane.
    Batches of small requests and of big ones are not computed side by side: a small request waits for the batches that
    have begun, and is then as quick as ever. Brief batches are the exception: waiting for all lanes would take longer
    than one thread needs for them.
    """

    def __init__(
        self,
        embedder: Embedder,
        poolers: Sequence[LlamaPooler],
        n_threads: int,
        done: Callable[[LaneDone], None],
        pulse: Pulse,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`n_threads` compute a batch that is alone. `done` is called on a lane's thread."""
        self._embedder = embedder
        self._n_lanes = len(poolers)
        self._n_threads = n_threads
        self._done = done
        self._clock = clock
        self._begun: list[Job] = []
        self._small_until = 0.0  # when small requests are no longer expected
        self._is_alone = False  # a batch has all threads: another beside it would be in its way
        self._free: queue.SimpleQueue[LlamaPooler] = queue.SimpleQueue()
        for pooler in poolers:
            self._free.put(pooler)
        self._threads = WatchedPool(self._n_lanes, "embedding lane", pulse, computes=True)

    def begin(self) -> None:
        """Give waiting batches to the lanes, as far as these can take them."""
        while len(self._begun) < self._n_lanes and not self._is_alone:
            is_big = self._embedder.is_big_next
            now = self._clock()
            others = [job for job in self._begun if job.is_big is not is_big]
            is_brief = now < self._small_until if is_big else bool(others) and self._embedder.is_brief_next
            if others and not (is_brief and all(job.is_brief for job in others)):
                return
            job = self._embedder.begin(brief=is_brief)
            if job is None:
                return
            if not is_big:
                self._small_until = now + EXPECTING
            has_company = self._embedder.has_waiting and self._embedder.is_big_next is is_big
            self._is_alone = not self._begun and not has_company
            self._begun.append(job)
            self._threads.submit(self._compute, job, self._n_threads if self._is_alone else 1)

    def finished(self, job: Job) -> None:
        """A job's LaneDone came: its lane gets the next batch."""
        self._begun.remove(job)
        self._is_alone = False
        self.begin()

    def close(self) -> None:
        """End the lanes' threads with the batches that they compute. Idempotent."""
        self._threads.shutdown(cancel_futures=True)

    def _compute(self, job: Job, n_threads: int) -> None:
        pooler = self._free.get()
        try:
            pooler.adopt(n_threads)
            outcome = compute(job, pooler)
        except Exception as error:  # else nobody would hear of it, and its requests would wait for ever
            logger.exception("a batch of passages")
            outcome = Outcome(0.0, [], to_wire(ServerFault(f"embedding failed: {error}")))
        finally:
            self._free.put(pooler)
        self._done(LaneDone(job, outcome))
