"""A scheduler without an engine: what it plans is noted and carried out by the plainest means."""

from __future__ import annotations

from typing import Any

from llamabox.engine.kv.kv_cache import KVCache
from llamabox.engine.scheduling.pacing import Pacing
from llamabox.engine.scheduling.scheduler import Scheduler
from llamabox.engine.scheduling.work import Work
from llamabox.engine.seams import RunnerFacts
from llamabox.engine.sequence import Sequence
from tests.engine.driver import request
from tests.fakes import FakeMemory

MAX_STEPS = 2_000

SAID = 9
"""The token that every sequence generates, over and over."""


class Workbench:
    """Sequences come in the order of `add`. One that has generated its n_predict tokens leaves."""

    def __init__(
        self,
        *,
        n_slots: int = 4,
        n_ctx: int = 1024,
        n_batch: int = 64,
        n_chunk: int = 32,
        tile: int = 1,
        mixes: bool = True,
        is_steady: bool = False,
        unified: bool = True,
        pacing: Pacing | None = None,
        cont_batching: bool = True,
    ) -> None:
        self.memory = FakeMemory(unified=unified)
        self.cache = KVCache(self.memory, n_slots, n_ctx)
        self.scheduler = Scheduler(
            self.cache,
            pacing or Pacing(factor=2.0),
            RunnerFacts(n_batch=n_batch, n_ubatch=n_chunk, tile=tile, mixes=mixes, is_steady=is_steady),
            cont_batching=cont_batching,
            slot_similarity=0.5,
        )
        self.n_arrived = 0
        self.n_steps = 0

    def add(self, tokens: tuple[int, ...], **params: Any) -> Sequence:
        self.n_arrived += 1
        asked = request(f"r{self.n_arrived}", tokens, **params)
        sequence = Sequence(asked, 0, seed=0, arrived=float(self.n_arrived))
        self.scheduler.add(sequence)
        return sequence

    def add_decoding(self, tokens: tuple[int, ...] = (1,), **params: Any) -> Sequence:
        """A sequence that has begun to generate and does not end of itself."""
        sequence = self.add(tokens, n_predict=-1, **params)
        while sequence.n_generated == 0:
            self.step()
        return sequence

    def plan(self) -> Work:
        """A step, not computed yet."""
        self.scheduler.admit(float(self.n_steps))
        return self.scheduler.schedule(float(self.n_steps))

    def step(self) -> Work:
        self.n_steps += 1
        assert self.n_steps <= MAX_STEPS, "what the test waits for never comes"
        work = self.plan()
        assert not work.stuck
        for share in work.shares:
            self._compute(share.sequence, share.stop)
        for share in work.shares:
            if share.rows:
                self._say(share.sequence)
            elif share.stop == len(share.sequence.cells):  # nothing is to be generated
                self.scheduler.remove(share.sequence)
        return work

    def _compute(self, sequence: Sequence, stop: int) -> None:
        assert sequence.slot is not None
        for cell in range(sequence.n_computed, stop):
            self.memory.compute(sequence.slot.slot_id, sequence.cells.key(cell), sequence.cells.position(cell))
        self.cache.computed(sequence.slot, sequence.cells, stop)

    def _say(self, sequence: Sequence) -> None:
        sequence.say(SAID)
        if sequence.n_generated == sequence.params.n_predict:
            self.scheduler.remove(sequence)
