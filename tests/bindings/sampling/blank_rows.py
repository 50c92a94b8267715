"""Rows of logits of all kinds, over vocabularies of the usual sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context, ContextParams
from llamabox.bindings.ffi import Native
from llamabox.bindings.model import Model
from tests.models.blank import write_blank

ROWS: dict[str, Callable[[np.random.Generator, int], NDArray[np.float32]]] = {
    "peaked": lambda rng, n: rng.normal(-2, 2.2, n).astype(np.float32),
    "flat": lambda rng, n: rng.normal(0, 1, n).astype(np.float32),
    "high": lambda rng, n: rng.normal(30, 3, n).astype(np.float32),
    "low": lambda rng, n: rng.normal(-40, 3, n).astype(np.float32),
    "equal ones": lambda rng, n: np.round(rng.normal(0, 2.5, n) * 8).astype(np.float32) / 8,
    "equal high ones": lambda rng, n: np.round(rng.normal(20, 2.5, n) * 64).astype(np.float32) / 64,
    "half precision": lambda rng, n: rng.normal(-2, 2.2, n).astype(np.float16).astype(np.float32),
    "far off": lambda rng, n: (rng.normal(0, 10, n) + 3e6).astype(np.float32),
    "all equal": lambda rng, n: np.full(n, 1.5, np.float32),
    "one high": lambda rng, n: np.where(np.arange(n) == n - 2, 25, rng.normal(0, 1, n)).astype(np.float32),
    "mostly impossible": lambda rng, n: np.where(rng.random(n) < 0.97, -np.inf, rng.normal(0, 3, n)).astype(np.float32),
}


@contextmanager
def blank_context(native: Native, folder: Path, n_vocab: int) -> Iterator[Context]:
    """A context whose row 0 has logits, to be overwritten."""
    params = ContextParams(n_ctx=64, n_batch=8, n_ubatch=8, n_seq_max=1, n_threads=1)
    with Model.load(native, write_blank(folder / "model.gguf", n_vocab)) as model, Context(model, params) as context:
        batch = NativeBatch(native, 8)
        batch.logits[batch.extend([1], 0, 0)] = 1
        context.decode(batch)
        yield context
