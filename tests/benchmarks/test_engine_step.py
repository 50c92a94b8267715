"""What one engine step costs by itself: everything but llama_decode and the samplers."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from llamabox.engine.engine import Engine
from tests.benchmarks.fakes.null_runner import NullRunner
from tests.engine.driver import engine_config, request

N_CTX = 4096


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
