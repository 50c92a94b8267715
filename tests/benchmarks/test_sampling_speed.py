"""Choosing the tokens of a step among the whole vocabulary: ours, and libllama's chain on the same row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from llamabox.bindings import backend
from llamabox.bindings.context import Context
from llamabox.bindings.ffi import load
from llamabox.bindings.sampling.sampler import RowSampler
from tests.bindings.sampling.blank_rows import blank_context
from tests.bindings.sampling.chains import Steps, chain, libllama_chain

N_ROWS = 16
TEMP = ("temp_ext", 0.8, 0.0, 1.0)

CHAINS: dict[str, Steps] = {
    "greedy": (("greedy",),),
    "the default": (("top_k", 40), ("top_p", 0.95, 0), ("min_p", 0.05, 0), TEMP, ("dist", 1)),
    "temperature": (TEMP, ("dist", 1)),
    "min_p": (("min_p", 0.05, 0), TEMP, ("dist", 1)),
    "top_p": (("top_p", 0.95, 0), TEMP, ("dist", 1)),
}


@pytest.fixture(scope="module", params=[49_152, 262_144])
def row(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """Spread as a small model's logits are in the middle of a text: a tenth of top_p's mass is far down."""
    native = load()
    backend.start(native)
    with blank_context(native, tmp_path_factory.mktemp("blank"), request.param) as context:
        context.logits(0)[:] = np.random.default_rng(1).normal(-3, 3, context.n_vocab)
        yield context


@pytest.mark.parametrize("name", CHAINS)
def test_a_step_of_sixteen_rows(benchmark: BenchmarkFixture, row: Context, name: str) -> None:
    sampler = RowSampler(row)
    chains = [chain(row, CHAINS[name]) for _ in range(N_ROWS)]
    tokens = benchmark.pedantic(sampler.sample, args=([0] * N_ROWS, chains), rounds=20, warmup_rounds=2)
    assert len(tokens) == N_ROWS
    assert min(tokens) >= 0


@pytest.mark.parametrize("name", CHAINS)
def test_the_same_by_libllama(benchmark: BenchmarkFixture, row: Context, name: str) -> None:
    lib = row.native.lib
    chains = [libllama_chain(row, CHAINS[name]) for _ in range(N_ROWS)]

    def step() -> list[int]:
        return [lib.llama_sampler_sample(made.handle, row.handle, 0) for made in chains]

    assert min(benchmark.pedantic(step, rounds=5, warmup_rounds=1)) >= 0
