"""The kernels that are compiled into ggml's CPU backend: one operation at a time, through ggml's own functions."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llamabox.bindings import _ffi, backend

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]

TYPES = {"q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "q4_K": 12, "q5_K": 13, "q6_K": 14}
"""GGML_TYPE_*: part of the file format."""
F32, F16, I32 = 0, 1, 26
COLUMNS = 32
"""That share a scale of a token."""


class InitParams(ctypes.Structure):
    """ggml_init_params."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_init": (c_void_p, [InitParams]),
    "ggml_free": (None, [c_void_p]),
    "ggml_tensor_overhead": (c_size_t, []),
    "ggml_graph_overhead": (c_size_t, []),
    "ggml_row_size": (c_size_t, [c_int, c_int64]),
    "ggml_quantize_chunk": (c_size_t, [c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p]),
    "ggml_new_tensor_1d": (c_void_p, [c_void_p, c_int, c_int64]),
    "ggml_new_tensor_2d": (c_void_p, [c_void_p, c_int, c_int64, c_int64]),
    "ggml_new_tensor_3d": (c_void_p, [c_void_p, c_int, c_int64, c_int64, c_int64]),
    "ggml_permute": (c_void_p, [c_void_p, c_void_p, c_int, c_int, c_int, c_int]),
    "ggml_mul_mat": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "ggml_new_tensor_4d": (c_void_p, [c_void_p, c_int, c_int64, c_int64, c_int64, c_int64]),
    "ggml_flash_attn_ext": (c_void_p, [c_void_p] * 5 + [c_float] * 3),
    "ggml_flash_attn_ext_add_sinks": (None, [c_void_p, c_void_p]),
    "ggml_get_rows": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "ggml_new_graph": (c_void_p, [c_void_p]),
    "ggml_build_forward_expand": (None, [c_void_p, c_void_p]),
    "ggml_backend_alloc_ctx_tensors": (c_void_p, [c_void_p, c_void_p]),
    "ggml_backend_alloc_ctx_tensors_from_buft": (c_void_p, [c_void_p, c_void_p]),
    "ggml_backend_buffer_free": (None, [c_void_p]),
    "ggml_backend_buft_name": (c_char_p, [c_void_p]),
    "ggml_backend_tensor_set": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
    "ggml_backend_tensor_get": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
    "ggml_backend_graph_compute": (c_int, [c_void_p, c_void_p]),
    "ggml_backend_dev_by_type": (c_void_p, [c_int]),
    "ggml_backend_dev_init": (c_void_p, [c_void_p, c_char_p]),
    "ggml_backend_dev_backend_reg": (c_void_p, [c_void_p]),
    "ggml_backend_reg_get_proc_address": (c_void_p, [c_void_p, c_char_p]),
    "ggml_backend_free": (None, [c_void_p]),
}


class Ggml:
    """ggml's CPU backend and the kernels' buffer type."""

    def __init__(self, native: _ffi.Native) -> None:
        backend.start(native)
        libraries = [ctypes.CDLL(str(native.prefix.path / f"lib{name}.so")) for name in ("ggml-base", "ggml")]
        for name, (result, arguments) in SIGNATURES.items():
            function = next(getattr(one, name) for one in libraries if hasattr(one, name))
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        device = self.ggml_backend_dev_by_type(0)
        self.registry = self.ggml_backend_dev_backend_reg(device)
        self.cpu = self.ggml_backend_dev_init(device, None)
        listed = self.function("ggml_backend_dev_get_extra_bufts", POINTER(c_void_p), c_void_p)(device)
        names = itertools.takewhile(bool, (listed[i] for i in itertools.count()))
        self.types = {self.ggml_backend_buft_name(one).decode(): one for one in names}

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def function(self, name: str, result: Any, *arguments: Any) -> Any:
        address = self.ggml_backend_reg_get_proc_address(self.registry, name.encode())
        return ctypes.CFUNCTYPE(result, *arguments)(address)

    def context(self) -> Any:
        size = 16 * self.ggml_tensor_overhead() + self.ggml_graph_overhead()
        return self.ggml_init(InitParams(size, None, True))

    def quantized(self, kind: str, weights: Floats) -> bytes:
        n_rows, n = weights.shape
        out = ctypes.create_string_buffer(self.ggml_row_size(TYPES[kind], n) * n_rows)
        self.ggml_quantize_chunk(TYPES[kind], weights.ctypes.data, out, 0, n_rows, n, None)
        return out.raw

    def compute(self, result: Any, context: Any, inputs: dict[Any, Any], shape: tuple[int, ...]) -> Floats:
        """The value of a tensor of `context` once its inputs, numpy arrays, are filled in."""
        graph = self.ggml_new_graph(context)
        self.ggml_build_forward_expand(graph, result)
        memory = self.ggml_backend_alloc_ctx_tensors(context, self.cpu)
        try:
            for tensor, values in inputs.items():
                self.ggml_backend_tensor_set(tensor, values.ctypes.data, 0, values.nbytes)
            assert self.ggml_backend_graph_compute(self.cpu, graph) == 0
            out = np.empty(shape, np.float32)
            self.ggml_backend_tensor_get(result, out.ctypes.data, 0, out.nbytes)
            return out
        finally:
            self.ggml_backend_buffer_free(memory)
            self.ggml_free(context)


class Matrix:
    """Quantised weights [n_rows, n] in a buffer of a type; None is the CPU's usual one."""

    def __init__(self, ggml: Ggml, kind: str, weights: Floats, buffer_type: Any) -> None:
        self.ggml, (self.n_rows, self.n) = ggml, weights.shape
        self.context = ggml.context()
        self.tensor = ggml.ggml_new_tensor_2d(self.context, TYPES[kind], self.n, self.n_rows)
        if buffer_type is None:
            self.memory = ggml.ggml_backend_alloc_ctx_tensors(self.context, ggml.cpu)
        else:
            self.memory = ggml.ggml_backend_alloc_ctx_tensors_from_buft(self.context, buffer_type)
        raw = ggml.quantized(kind, weights)
        ggml.ggml_backend_tensor_set(self.tensor, raw, 0, len(raw))

    def __enter__(self) -> Matrix:
        return self

    def __exit__(self, *_: object) -> None:
        self.ggml.ggml_backend_buffer_free(self.memory)
        self.ggml.ggml_free(self.context)

    def times(self, tokens: Floats) -> Floats:
        """[n_tokens, n] → [n_tokens, n_rows]."""
        context = self.ggml.context()
        x = self.ggml.ggml_new_tensor_2d(context, F32, self.n, len(tokens))
        result = self.ggml.ggml_mul_mat(context, self.tensor, x)
        return self.ggml.compute(result, context, {x: np.ascontiguousarray(tokens)}, (len(tokens), self.n_rows))

    def times_permuted(self, tokens: Floats) -> Floats:
        """[a, b, n], given to ggml as a view whose middle axes are swapped, → [b, a, n_rows]."""
        a, b, _ = tokens.shape
        context = self.ggml.context()
        x = self.ggml.ggml_new_tensor_3d(context, F32, self.n, b, a)
        result = self.ggml.ggml_mul_mat(context, self.tensor, self.ggml.ggml_permute(context, x, 0, 2, 1, 3))
        return self.ggml.compute(result, context, {x: np.ascontiguousarray(tokens)}, (b, a, self.n_rows))

    def values(self) -> Floats:
        """[n_rows, n], as ggml reads the type."""
        context = self.ggml.context()
        rows = self.ggml.ggml_new_tensor_1d(context, I32, self.n_rows)
        result = self.ggml.ggml_get_rows(context, self.tensor, rows)
        return self.ggml.compute(result, context, {rows: np.arange(self.n_rows, dtype=np.int32)}, (self.n_rows, self.n))


@pytest.fixture(scope="module")
def ggml() -> Iterator[Ggml]:
    made = Ggml(_ffi.load())
    yield made
    made.ggml_backend_free(made.cpu)


@pytest.fixture(scope="module")
def kinds(ggml: Ggml) -> list[str]:
    """The types that this processor has kernels for."""
    found = backend.kernels(_ffi.load())
    if found is None:
        return []
    everywhere = ["q4_0", "q4_1", "q5_0", "q5_1"]
    return {"AVX2": everywhere, "AVX-VNNI": [*everywhere, "q8_0"]}.get(found, list(TYPES))


def random_floats(seed: int, *shape: int) -> Floats:
    """With some far from the others, as models have them, and some zero."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) * np.exp2(rng.integers(-6, 3, shape))
    values[..., : COLUMNS // 2] *= rng.integers(0, 2)
    return values.astype(np.float32)


def as_bytes(tokens: Floats) -> NDArray[np.float64]:
    """What is left of tokens when each 32 columns are bytes with one scale: the oracle for native/added/tokens.h."""
    blocks = tokens.reshape(-1, COLUMNS)
    most = np.abs(blocks).max(axis=1, keepdims=True)
    inverse = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most > 0)
    quants = np.rint(blocks * inverse).astype(np.float64)
    return (quants * (most / np.float32(127)).astype(np.float64)).reshape(tokens.shape)


def test_it_is_there_on_a_processor_that_has_the_vectors(ggml: Ggml) -> None:
    with open("/proc/cpuinfo") as file:
        has_vectors = " avx2 " in file.read()
    assert ("CPU_LLAMABOX" in ggml.types) == has_vectors
    assert (backend.kernels(_ffi.load()) is not None) == has_vectors


def test_products_are_those_of_the_weights_with_tokens_of_eight_bits(ggml: Ggml, kinds: list[str]) -> None:
    for seed, (kind, n_rows, n) in enumerate(itertools.product(kinds, (16, 208), (256, 1280))):
        weights = random_floats(seed, n_rows, n) / 16
        with (
            Matrix(ggml, kind, weights, None) as plain,
            Matrix(ggml, kind, weights, ggml.types["CPU_LLAMABOX"]) as packed,
        ):
            values = plain.values().astype(np.float64)
            for n_tokens in (1, 2, 5, 8, 9, 40):
                tokens = random_floats(seed + n_tokens, n_tokens, n)
                expected = as_bytes(tokens) @ values.T
                scale = np.abs(as_bytes(tokens)) @ np.abs(values).T + 1e-9
                assert (np.abs(packed.times(tokens) - expected) / scale).max() < 1e-5, (kind, n_rows, n, n_tokens)


def test_a_row_is_the_same_in_any_company(ggml: Ggml, kinds: list[str]) -> None:
    """To the last bit: on this rests that a text does not depend on the others that are computed beside it."""
    for seed, kind in enumerate(kinds):
        with Matrix(ggml, kind, random_floats(seed, 64, 512), ggml.types["CPU_LLAMABOX"]) as packed:
            tokens = random_floats(seed, 21, 512)
            together = packed.times(tokens)
            for first, last in ((0, 1), (3, 5), (4, 12), (20, 21), (0, 17)):
                np.testing.assert_array_equal(packed.times(tokens[first:last]), together[first:last])


def test_threads_do_not_show(ggml: Ggml, kinds: list[str]) -> None:
    set_threads = ggml.function("ggml_backend_set_n_threads", None, c_void_p, c_int)
    for seed, kind in enumerate(kinds):
        with Matrix(ggml, kind, random_floats(seed, 112, 256), ggml.types["CPU_LLAMABOX"]) as packed:
            tokens = random_floats(seed, 11, 256)
            results = []
            for n_threads in (1, 2, 3, 8):
                set_threads(ggml.cpu, n_threads)
                results.append(packed.times(tokens))
            set_threads(ggml.cpu, 1)
            for result in results[1:]:
                np.testing.assert_array_equal(result, results[0])


def test_tokens_may_lie_apart(ggml: Ggml, kinds: list[str]) -> None:
    for seed, kind in enumerate(kinds):
        with Matrix(ggml, kind, random_floats(seed, 32, 256), ggml.types["CPU_LLAMABOX"]) as packed:
            tokens = random_floats(seed, 3, 4, 256)
            expected = packed.times(tokens.transpose(1, 0, 2).reshape(12, 256)).reshape(4, 3, 32)
            np.testing.assert_array_equal(packed.times_permuted(tokens), expected)


# ---- attention -------------------------------------------------------------------------------------------------------


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
    return backend.has_attention_kernel(_ffi.load(), "f16", 64)


def test_what_attention_is_there_for(attends: bool) -> None:
    native = _ffi.load()
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
