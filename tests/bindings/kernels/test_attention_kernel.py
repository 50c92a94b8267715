"""Flash attention on the CPU, which is compiled into ggml's CPU backend."""

from __future__ import annotations

import itertools
from ctypes import c_int, c_void_p
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llamabox.bindings import backend, ffi
from tests.bindings.kernels.ggml_operations import F16, F32, Floats, Ggml, Halves, has_vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Queries [stream, head, token, size], cells [stream, shared head, cell, size], mask [stream, token, cell]."""

    q: Floats
    k: Halves
    v: Halves
    mask: Halves
    scale: float = 0.125
    max_bias: float = 0.0
    softcap: float = 0.0
    sinks: Floats | None = None  # [head]

    def tokens(self, first: int, last: int) -> Case:
        return replace(self, q=self.q[:, :, first:last], mask=self.mask[:, first:last])

    def compute(self, ggml: Ggml) -> Floats:
        """[stream, token, head, size]."""
        context = ggml.context()
        q, k, v, mask = (
            ggml.ggml_new_tensor_4d(context, kind, *reversed(values.shape))
            for kind, values in ((F32, self.q), (F16, self.k), (F16, self.v), (F16, self.mask[:, None]))
        )
        result = ggml.ggml_flash_attn_ext(context, q, k, v, mask, self.scale, self.max_bias, self.softcap)
        inputs = {q: self.q, k: self.k, v: self.v, mask: self.mask}
        if self.sinks is not None:
            sinks = ggml.ggml_new_tensor_1d(context, F32, len(self.sinks))
            ggml.ggml_flash_attn_ext_add_sinks(result, sinks)
            inputs[sinks] = self.sinks
        n_streams, n_heads, n_tokens, _ = self.q.shape
        filled = {tensor: np.ascontiguousarray(values) for tensor, values in inputs.items()}
        return ggml.compute(result, context, filled, (n_streams, n_tokens, n_heads, self.v.shape[3]))

    def expected(self) -> NDArray[np.float64]:
        """The definition, in float64."""
        n_heads, n_shared = self.q.shape[1], self.q.shape[1] // self.k.shape[1]
        k, v = (np.repeat(cells.astype(np.float64), n_shared, axis=1) for cells in (self.k, self.v))
        scores = self.q.astype(np.float64) @ k.transpose(0, 1, 3, 2) * self.scale
        if self.softcap:
            scores = self.softcap * np.tanh(scores / self.softcap)
        slopes = np.array([slope(head, n_heads, self.max_bias) for head in range(n_heads)])
        scores += slopes[None, :, None, None] * self.mask[:, None].astype(np.float64)
        most = scores.max(axis=-1, keepdims=True)
        sinks = np.full((n_heads, 1, 1), -np.inf) if self.sinks is None else self.sinks[:, None, None]
        most = np.maximum(most, sinks)
        weights = np.exp(scores - most)
        result = weights @ np.where(np.isfinite(v), v, 0) / (weights.sum(axis=-1, keepdims=True) + np.exp(sinks - most))
        return result.transpose(0, 2, 1, 3)


def slope(head: int, n_heads: int, max_bias: float) -> float:
    """Of attention with linear biases (ALiBi, arXiv:2108.12409), as ggml spreads it over any number of heads."""
    if max_bias <= 0:
        return 1.0
    base = 1 << (n_heads.bit_length() - 1)
    return 2.0 ** (-max_bias * (head + 1) / base if head < base else -max_bias / 2 * (2 * (head - base) + 1) / base)


def random_case(seed: int, *, n_heads: int, n_shared: int, size: int, n_tokens: int, n_cells: int, **more: Any) -> Case:
    """Two streams; a token sees some of the cells up to its own, and its own."""
    rng = np.random.default_rng(seed)
    own = n_cells - n_tokens + np.arange(n_tokens)[:, None]
    cell = np.arange(n_cells)
    seen = ((cell < own) & (rng.random((2, n_tokens, n_cells)) < 0.8)) | (cell == own)
    return Case(
        q=rng.standard_normal((2, n_heads, n_tokens, size)).astype(np.float32) * 3,
        k=rng.standard_normal((2, n_heads // n_shared, n_cells, size)).astype(np.float16),
        v=rng.standard_normal((2, n_heads // n_shared, n_cells, size)).astype(np.float16),
        mask=np.where(seen, 0, -np.inf).astype(np.float16),
        **more,
    )


SHAPES = [
    {"n_heads": 9, "n_shared": 3, "size": 64},
    {"n_heads": 4, "n_shared": 1, "size": 256},
    {"n_heads": 20, "n_shared": 20, "size": 80},
    {"n_heads": 6, "n_shared": 2, "size": 128, "max_bias": 8.0},
    {"n_heads": 4, "n_shared": 4, "size": 64, "softcap": 20.0},
    {"n_heads": 4, "n_shared": 2, "size": 64, "sinks": np.array([0.5, -3, 4, 0], np.float32)},
]


@pytest.fixture(scope="module")
def attends(ggml: Ggml) -> bool:
    """Whether the attention that is tested is ours: ggml's has other rounding, and rows in company are others."""
    return backend.has_attention_kernel(ffi.load(), "f16", 64)


def test_what_attention_is_there_for(attends: bool) -> None:
    native = ffi.load()
    assert attends == has_vectors()
    for cell_type, size in (("f16", 16), ("f16", 80), ("f16", 256)):
        assert backend.has_attention_kernel(native, cell_type, size) == attends
    for cell_type, size in (("f16", 512), ("f16", 60), ("f32", 64), ("q8_0", 64), ("bf16", 64)):
        assert not backend.has_attention_kernel(native, cell_type, size)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("n_tokens", "n_cells"), [(1, 1), (1, 300), (5, 17), (33, 64), (70, 256)])
def test_attention_is_what_its_definition_says(
    ggml: Ggml, attends: bool, shape: dict[str, Any], n_tokens: int, n_cells: int
) -> None:
    case = random_case(n_tokens, n_tokens=n_tokens, n_cells=n_cells, **shape)
    tolerance = 2e-6 if attends else 2e-2
    np.testing.assert_allclose(case.compute(ggml), case.expected(), atol=tolerance * 10, rtol=tolerance)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_row_attends_alike_in_any_company_and_with_any_threads(
    ggml: Ggml, attends: bool, shape: dict[str, Any]
) -> None:
    if not attends:
        return
    set_threads = ggml.function("ggml_backend_set_n_threads", None, c_void_p, c_int)
    case = random_case(3, n_tokens=40, n_cells=96, **shape)
    together = case.compute(ggml)
    for n_threads, (first, last) in itertools.product((1, 2, 5), ((0, 1), (7, 9), (39, 40), (0, 40))):
        set_threads(ggml.cpu, n_threads)
        np.testing.assert_array_equal(case.tokens(first, last).compute(ggml), together[:, first:last])
    set_threads(ggml.cpu, 1)


def test_where_its_cells_lie_does_not_matter(ggml: Ggml, attends: bool) -> None:
    """In a pool that it shares, or among holes."""
    if not attends:
        return
    alone = random_case(7, n_heads=4, n_shared=2, size=64, n_tokens=6, n_cells=45)
    places = np.sort(np.random.default_rng(7).choice(200, 45, replace=False))
    k, v = (np.full((2, 2, 200, 64), np.nan, np.float16) for _ in range(2))
    k[:, :, places], v[:, :, places] = alone.k, alone.v
    mask = np.full((2, 6, 200), -np.inf, np.float16)
    mask[:, :, places] = alone.mask
    np.testing.assert_array_equal(replace(alone, k=k, v=v, mask=mask).compute(ggml), alone.compute(ggml))


def test_what_lies_in_masked_cells_does_not_matter(ggml: Ggml, attends: bool) -> None:
    """Such as a number that is none: it would otherwise go from one text into all that use its cells later."""
    case = random_case(5, n_heads=4, n_shared=2, size=64, n_tokens=1, n_cells=48)
    masked = np.isinf(case.mask[:, 0])
    k, v = case.k.copy(), case.v.copy()
    for cells in (k, v):
        for stream in range(2):
            cells[stream, :, masked[stream]] = np.nan
    np.testing.assert_array_equal(replace(case, k=k, v=v).compute(ggml), case.compute(ggml))


def test_what_is_no_number_stays_in_its_row(ggml: Ggml) -> None:
    """A NaN among the queries is one of that row's result, and a NaN in a cell of those that see it."""
    for seed, value in enumerate((np.nan, np.inf)):
        case = random_case(seed, n_tokens=20, n_cells=64, n_heads=4, n_shared=2, size=64)
        expected = case.compute(ggml)
        case.q[1, 2, 7, 5] = value
        case.v[0, 1, 50] = value
        sees = case.mask[0, :, 50] == 0
        assert 0 < sees.sum() < 20
        found = case.compute(ggml)
        assert np.isnan(found[1, 7, 2]).all()
        assert not np.isfinite(found[0, sees][:, 2:]).any()
        expected[1, 7, 2], found[1, 7, 2] = 0, 0
        expected[0, sees, 2:], found[0, sees, 2:] = 0, 0
        np.testing.assert_array_equal(found, expected)
