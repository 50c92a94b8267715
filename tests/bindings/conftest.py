"""The real library and the demo model, loaded once for the session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamabox.bindings import backend, ffi
from llamabox.bindings.context import Context, ContextParams
from llamabox.bindings.model import Model
from llamabox.bindings.vocab import Vocab
from llamabox.demo import ensure_demo_model
from tests.bindings.kernels.ggml_operations import Ggml

Prompt = Callable[[Context, str], int]


@pytest.fixture(scope="session")
def native() -> ffi.Native:
    loaded = ffi.load()
    backend.start(loaded)
    return loaded


@pytest.fixture(scope="session")
def model_path() -> Path:
    return ensure_demo_model(progress=False)


@pytest.fixture(scope="session")
def model(native: ffi.Native, model_path: Path) -> Iterator[Model]:
    with Model.load(native, model_path) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def vocab(model: Model) -> Vocab:
    return model.vocab


@pytest.fixture
def context(model: Model) -> Iterator[Context]:
    params = ContextParams(
        n_ctx=512, n_batch=128, n_ubatch=128, n_seq_max=4, n_threads=1
    )  # two would wait for each other on a busy machine
    with Context(model, params) as made:
        yield made


@pytest.fixture(scope="module")
def ggml() -> Iterator[Ggml]:
    """ggml's CPU backend by itself."""
    made = Ggml(ffi.load())
    yield made
    made.ggml_backend_free(made.cpu)
