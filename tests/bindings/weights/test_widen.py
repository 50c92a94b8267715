"""A widened model is the same model: every number of it, and nothing else but the matrices' type has changed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from llamabox.bindings.files import gguf
from llamabox.bindings.weights.widen import F16, F32, wideable, widened
from tests.models.gguf_file import write_gguf

SIZES = {F32: (1, 4), F16: (1, 2)}
VALUES: dict[str, str | int | float] = {"general.architecture": "bert", "bert.block_count": 1}


def numbers(path: Path, header: gguf.Header, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    tensor = header.tensors[name]
    raw = path.read_bytes()[header.data_start + tensor.offset :][: tensor.n_bytes]
    return np.frombuffer(raw, "<f2" if tensor.kind == F16 else "<f4").astype(np.float32)


def test_every_number_is_there_and_the_matrices_are_wide(tmp_path: Path) -> None:
    drawn = np.random.default_rng(1).normal(size=(6, 7))
    half = drawn.astype(np.float16)
    tensors = {
        "token_embd.weight": half,
        "blk.0.attn_q.weight": half[:5],
        "blk.0.attn_q.bias": drawn[0].astype(np.float32),
        "blk.0.ffn_up.weight": half[1:, :3],
        "cls.weight": half,
    }
    path = write_gguf(tmp_path / "model.gguf", VALUES, tensors)
    header = gguf.read_header(path, SIZES)
    assert set(wideable(header)) == {"blk.0.attn_q.weight", "blk.0.ffn_up.weight"}
    descriptor = widened(path, header, 1 << 20)
    assert descriptor is not None
    copy = Path(f"/proc/self/fd/{descriptor}")
    wide = gguf.read_header(copy, SIZES)
    assert wide.values == header.values
    assert list(wide.tensors) == list(header.tensors)
    for name in tensors:
        assert wide.tensors[name].shape == header.tensors[name].shape
        assert wide.tensors[name].kind == (F32 if name in wideable(header) else header.tensors[name].kind)
        assert np.array_equal(numbers(copy, wide, name), numbers(path, header, name))
    os.close(descriptor)


@pytest.mark.parametrize("budget", [0, 10])
def test_no_more_memory_than_is_granted(tmp_path: Path, budget: int) -> None:
    path = write_gguf(tmp_path / "model.gguf", VALUES, {"blk.0.attn_q.weight": np.zeros((5, 5), np.float16)})
    assert widened(path, gguf.read_header(path, SIZES), budget) is None


def test_a_model_without_half_precision_is_left_alone(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", VALUES, {"blk.0.attn_q.weight": np.zeros((5, 5), np.float32)})
    assert widened(path, gguf.read_header(path, SIZES), 1 << 20) is None
