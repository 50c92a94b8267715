"""A runner that computes nothing, for what an engine's step costs without a model."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np

from llamabox.engine.batch import Batch
from llamabox.engine.grammar import TokenMask
from llamabox.engine.logprobs import Distribution
from llamabox.engine.request import SamplingParams
from llamabox.engine.seams import Ask, Memory, Runner, RunnerFacts, Sampler


class NullMemory:
    """Knows where each sequence ends, and nothing else."""

    can_shift = True
    can_truncate = True
    n_rollback = 0
    has_part = False
    part_is_all = False
    is_unified = False
    is_near = True
    state_is_all = False
    n_pool = 0
    n_window = 0

    def __init__(self) -> None:
        self.last: dict[int, int] = {}

    def seq_rm(self, seq_id: int, p0: int, p1: int) -> bool:
        if p1 < 0:
            self.last[seq_id] = p0 - 1 if p0 > 0 else -1
        return True

    def seq_cp(self, source: int, target: int) -> None:
        self.last[target] = self.seq_pos_max(source)

    def seq_add(self, seq_id: int, p0: int, p1: int, delta: int) -> None:
        self.last[seq_id] += delta

    def seq_detach(self, seq_id: int) -> bool:
        return True

    def carry_out(self, seq_id: int) -> None:
        pass

    def state_size(self, seq_id: int, *, part: bool = False) -> int:
        return 0

    def state_get(self, seq_id: int, into: memoryview | None = None, *, part: bool = False) -> bytes:
        return b""

    def state_set(self, seq_id: int, state: bytes | memoryview, *, part: bool = False) -> bool:
        return False

    def seq_pos_min(self, seq_id: int) -> int:
        return min(0, self.seq_pos_max(seq_id))

    def seq_pos_max(self, seq_id: int) -> int:
        return self.last.get(seq_id, -1)

    def clear(self) -> None:
        self.last.clear()


class NullSampler:
    """Has no state."""

    takes_highest = True

    def accept(self, token: int) -> None:
        pass

    def accept_all(self, tokens: Seq[int]) -> None:
        pass

    def close(self) -> None:
        pass


class NullRunner:
    """Computes nothing: each token is 65."""

    facts = RunnerFacts(n_batch=2048, n_ubatch=512, mixes=False)

    def __init__(self) -> None:
        self.memory = NullMemory()
        self.n_rows = 0

    def sampler_source(self, params: SamplingParams, prompt: Seq[int], n_ctx: int) -> NullRunner:
        return self

    def start(self, seed: int) -> NullSampler:
        return NullSampler()

    def execute(self, batch: Batch) -> None:
        self.n_rows = len(batch)
        self.memory.last.update((run.seq_id, run.position + len(run) - 1) for run in batch.runs)

    def wait(self) -> None:
        pass

    def sample(self, asks: Seq[Ask]) -> list[list[int]]:
        return [[65] for _ in asks]

    def logprobs(self, row: int, token: int, n: int) -> tuple[float, list[tuple[int, float]]]:
        return 0.0, []

    def distribution(self, row: int, sampler: Sampler, mask: TokenMask | None) -> Distribution:
        return Distribution(np.empty(0, np.int32), np.empty(0))

    def piece(self, token: int, special: bool) -> bytes:
        return b"A"

    def is_eog(self, token: int) -> bool:
        return False


def _is_whole(runner: NullRunner, memory: NullMemory, sampler: NullSampler) -> tuple[Runner, Memory, Sampler]:
    """Never called: mypy says here what the engine wants and these have not."""
    return runner, memory, sampler
