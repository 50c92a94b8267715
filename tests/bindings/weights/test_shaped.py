"""Models of random weights, for measurements: what they cost is true only if they are what files of their kind are."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context, ContextParams
from llamabox.bindings.ffi import Native
from llamabox.bindings.model import Model
from tests.models.gguf_file import ByBytes, Packed
from tests.models.shaped.llama import Shape, write_shaped
from tests.models.shaped.weights import FORMATS, RandomWeights

SMALL = Shape(n_layer=2, n_embd=256, n_ff=512, n_head=4, n_head_kv=2)


def numbers(native: Native, packed: Packed, name: str) -> np.ndarray:
    """The weights as ggml reads them."""
    if name == "f16":
        return np.frombuffer(packed.tobytes(), "<f2").astype(np.float32)
    library = ctypes.CDLL(str(native.prefix.path / "libggml-base.so"))
    unpack = getattr(library, f"dequantize_row_{name.replace('_k', '_K')}")
    unpack.argtypes, unpack.restype = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64], None
    found = np.empty(packed.shape, np.float32)
    unpack(packed.tobytes(), found.ctypes.data, found.size)
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_weights_are_finite_and_of_a_usual_size(native: Native, name: str) -> None:
    found = numbers(native, RandomWeights((64, 1024), FORMATS[name], 1), name)
    assert np.isfinite(found).all()
    assert 0.6 < found.std() * np.sqrt(1024) < 1.6
    assert abs(found.mean()) < found.std() / 8


def test_real_weights_as_bytes_are_what_they_were(native: Native) -> None:
    drawn = np.random.default_rng(1).standard_normal((6, 64), np.float32)
    drawn[2] = 0
    off = np.abs(numbers(native, ByBytes(drawn), "q8_0").reshape(drawn.shape) - drawn)
    assert (off <= np.abs(drawn).max(axis=1, keepdims=True) / 200).all()


@pytest.mark.model
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, SMALL) for name in FORMATS),
        ("q4_k", replace(SMALL, n_experts=4, n_used=2)),
    ],
    ids=lambda one: one if isinstance(one, str) else "experts" if one.n_experts else "",
)
def test_a_model_of_them_computes(native: Native, model_path: Path, tmp_path: Path, name: str, shape: Shape) -> None:
    path = write_shaped(tmp_path / "shaped.gguf", model_path, shape, name)
    params = ContextParams(n_ctx=64, n_batch=64, n_ubatch=64, n_seq_max=1, n_threads=1)
    with Model.load(native, path) as model, Context(model, params) as context:
        batch = NativeBatch(native, 8)
        rows = batch.extend(list(range(1000, 1008)), 0, 0)
        batch.logits[rows[-1]] = 1
        context.decode(batch)
        logits = np.array(context.logits(7))
    assert len(logits) == model.vocab.n_tokens
    assert np.isfinite(logits).all()
    assert 0.05 < logits.std() < 20
