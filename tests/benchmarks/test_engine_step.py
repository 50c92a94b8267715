"""What one engine step costs by itself: everything but llama_decode and the samplers."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from llamabox.engine.batch import Batch
from llamabox.engine.engine import Engine
from llamabox.engine.request import SamplingParams
from llamabox.engine.seams import Ask, RunnerFacts
from tests.engine.driver import engine_config, request

N_CTX = 4096


class NullMemory:
    """Knows where each sequence ends, and nothing else."""

    can_shift = True
    can_truncate = True
    n_rollback = 0
    has_part = False
    part_is_all = False
    is_unified = False
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

    def sample(self, asks: Seq[Ask]) -> list[list[int]]:
        return [[65] for _ in asks]

    def piece(self, token: int, special: bool) -> bytes:
        return b"A"

    def is_eog(self, token: int) -> bool:
        return False


def decoding(n_rows: int, **params: object) -> tuple[Engine, NullRunner]:
    """An engine in which `n_rows` sequences decode on and on behind prompts of 500 tokens."""
    runner = NullRunner()
    engine = Engine(runner, engine_config(n_slots=n_rows, n_ctx=N_CTX))
    for i in range(n_rows):
        engine.submit(request(f"r{i}", (i + 1, *[7] * 499), n_predict=-1, **params))
    while any(sequence.is_prefilling for sequence in engine.running) or engine.n_waiting:
        engine.step()
    return engine, runner


@pytest.mark.parametrize("n_rows", [1, 8, 32])
def test_a_decode_step(benchmark: BenchmarkFixture, n_rows: int) -> None:
    engine, runner = decoding(n_rows)
    result = benchmark.pedantic(engine.step, rounds=100, warmup_rounds=5)
    assert len(result.events) == runner.n_rows == n_rows
    assert engine.check_integrity() == []


def test_a_decode_step_with_stop_strings(benchmark: BenchmarkFixture) -> None:
    engine, runner = decoding(8, stop=("User:\n", "Assistant:\n", "</s>"))
    result = benchmark.pedantic(engine.step, rounds=100, warmup_rounds=5)
    assert len(result.events) == runner.n_rows == 8


def test_admitting_a_prompt_with_a_shared_prefix_beside_running_streams(benchmark: BenchmarkFixture) -> None:
    engine, runner = decoding(8)
    engine.abort("r7")
    asked = iter([request(f"new{i}", (1, *[7] * 499, 8, 9), n_predict=1) for i in range(60)])

    def ask() -> set[int]:
        engine.submit(next(asked))
        return {len(engine.step().events) and runner.n_rows for _ in range(2)}  # lone rows and runs take turns

    assert benchmark.pedantic(ask, rounds=50, warmup_rounds=2) == {7, 2}
    assert engine.check_integrity() == []
