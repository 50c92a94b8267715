"""A mixture of experts, from the file to the logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context, ContextParams
from llamabox.bindings.ffi import Native
from llamabox.bindings.model import Model, ModelParams
from llamabox.errors import ModelLoadError
from llamabox.options.values.weights import EXPERTS
from tests.models.experts import with_experts

TEXT = (
    "Paris is the capital of France. Berlin is the capital of Germany. Rome is the capital of Italy. "
    "Lisbon is the capital of Portugal. Madrid is the capital of"
)


@pytest.fixture(scope="module")
def mixture(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_experts(model_path, tmp_path_factory.mktemp("experts") / "mixture.gguf", n_experts=4, n_used=2)


def logits(model: Model, n_batch: int) -> NDArray[np.float32]:
    """Behind TEXT, computed so many tokens at a time."""
    tokens = model.vocab.tokenize(TEXT, add_special=True, parse_special=True)
    with Context(model, ContextParams(n_ctx=64, n_batch=64, n_ubatch=64, n_seq_max=1, n_threads=1)) as context:
        batch = NativeBatch(model.native, 64)
        for start in range(0, len(tokens), n_batch):
            batch.clear()
            rows = batch.extend(tokens[start : start + n_batch], start, 0)
            batch.logits[rows[-1]] = 1
            context.decode(batch)
        return context.logits(rows[-1]).copy()


def test_a_buffer_type_for_experts(native: Native, mixture: Path) -> None:
    """The CPU's is the one that they have here anyway; others are refused, and those that there are named."""
    with Model.load(native, mixture) as loaded:
        expected = logits(loaded, 7)
    with Model.load(native, mixture, ModelParams(tensor_buffers=((EXPERTS, "CPU"),))) as loaded:
        assert np.array_equal(logits(loaded, 7), expected)
    with pytest.raises(ModelLoadError, match=r"no buffer type 'GPU7' for .*: there are CPU"):
        Model.load(native, mixture, ModelParams(tensor_buffers=((EXPERTS, "GPU7"),)))


@pytest.mark.parametrize("n_batch", [1, 7, 40])
@pytest.mark.parametrize("repack", [True, False])
def test_equal_experts_are_the_model_itself(
    native: Native, model: Model, mixture: Path, n_batch: int, repack: bool
) -> None:
    expected = logits(model, n_batch)
    with Model.load(native, mixture, ModelParams(repack=repack)) as loaded:
        found = logits(loaded, n_batch)
    # Rounding of the experts' mean goes on through numbers of eight bits, as other kernels' rounding does.
    assert np.abs(found - expected).mean() < 0.1 * expected.std()
    assert found.argmax() == expected.argmax()
