"""One operation of ggml's CPU backend at a time, through ggml's own functions: what the kernels are tested with."""

from __future__ import annotations

import ctypes
import itertools
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings import backend, ffi

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]

TYPES = {
    "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8,
    "q4_K": 12, "q5_K": 13, "q6_K": 14, "iq4_nl": 20, "iq4_xs": 23, "mxfp4": 39, "f16": 1,
}  # fmt: skip
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
    "ggml_view_2d": (c_void_p, [c_void_p, c_void_p, c_int64, c_int64, c_size_t, c_size_t]),
    "ggml_permute": (c_void_p, [c_void_p, c_void_p, c_int, c_int, c_int, c_int]),
    "ggml_mul_mat": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "ggml_mul_mat_id": (c_void_p, [c_void_p] * 4),
    "ggml_new_tensor_4d": (c_void_p, [c_void_p, c_int, c_int64, c_int64, c_int64, c_int64]),
    "ggml_flash_attn_ext": (c_void_p, [c_void_p] * 5 + [c_float] * 3),
    "ggml_flash_attn_ext_add_sinks": (None, [c_void_p, c_void_p]),
    "ggml_gelu": (c_void_p, [c_void_p, c_void_p]),
    "ggml_get_rows": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "ggml_new_graph": (c_void_p, [c_void_p]),
    "ggml_build_forward_expand": (None, [c_void_p, c_void_p]),
    "ggml_backend_alloc_ctx_tensors": (c_void_p, [c_void_p, c_void_p]),
    "ggml_backend_alloc_ctx_tensors_from_buft": (c_void_p, [c_void_p, c_void_p]),
    "ggml_backend_buffer_free": (None, [c_void_p]),
    "ggml_backend_buft_name": (c_char_p, [c_void_p]),
    "ggml_backend_buft_get_alloc_size": (c_size_t, [c_void_p, c_void_p]),
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

    def __init__(self, native: ffi.Native) -> None:
        backend.start(native)
        self.library = native.prefix.path / "libggml-base.so"
        libraries = [ctypes.CDLL(str(native.prefix.path / f"lib{name}.so")) for name in ("ggml-base", "ggml")]
        for name, (result, arguments) in SIGNATURES.items():
            function = next(getattr(one, name) for one in libraries if hasattr(one, name))
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        device = self.ggml_backend_dev_by_type(0)
        self.registry = self.ggml_backend_dev_backend_reg(device)
        self.cpu = self.ggml_backend_dev_init(device, None)
        # Its four threads would wait for each other on a busy machine.
        self.function("ggml_backend_set_n_threads", None, c_void_p, c_int)(self.cpu, 1)
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
    """Quantised weights [n_rows, n] or [expert, n_rows, n] in a buffer of a type; None is the CPU's usual one.

    `raw` are ggml's blocks in place of those that the weights quantise to.
    """

    def __init__(self, ggml: Ggml, kind: str, weights: Floats, buffer_type: Any, raw: bytes = b"") -> None:
        self.ggml, (*_, self.n_rows, self.n) = ggml, weights.shape
        self.context = ggml.context()
        self.type = TYPES[kind]
        make = ggml.ggml_new_tensor_2d if weights.ndim == 2 else ggml.ggml_new_tensor_3d
        self.tensor = make(self.context, self.type, *reversed(weights.shape))
        if buffer_type is None:
            self.memory = ggml.ggml_backend_alloc_ctx_tensors(self.context, ggml.cpu)
        else:
            self.memory = ggml.ggml_backend_alloc_ctx_tensors_from_buft(self.context, buffer_type)
        raw = raw or ggml.quantized(kind, weights.reshape(-1, self.n))
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

    def part_times(self, first: int, n_rows: int, tokens: Floats) -> Floats:
        """The same with some of the rows alone, through a view."""
        context = self.ggml.context()
        row = self.ggml.ggml_row_size(self.type, self.n)
        x = self.ggml.ggml_new_tensor_2d(context, F32, self.n, len(tokens))
        part = self.ggml.ggml_view_2d(context, self.tensor, self.n, n_rows, row, first * row)
        result = self.ggml.ggml_mul_mat(context, part, x)
        return self.ggml.compute(result, context, {x: np.ascontiguousarray(tokens)}, (len(tokens), n_rows))

    def times_permuted(self, tokens: Floats) -> Floats:
        """[a, b, n], given to ggml as a view whose middle axes are swapped, → [b, a, n_rows]."""
        a, b, _ = tokens.shape
        context = self.ggml.context()
        x = self.ggml.ggml_new_tensor_3d(context, F32, self.n, b, a)
        result = self.ggml.ggml_mul_mat(context, self.tensor, self.ggml.ggml_permute(context, x, 0, 2, 1, 3))
        return self.ggml.compute(result, context, {x: np.ascontiguousarray(tokens)}, (b, a, self.n_rows))

    def visited(self, tokens: Floats, experts: NDArray[np.int32]) -> Floats:
        """Tokens [n_tokens, 1 or n_used, n] by their experts [n_tokens, n_used] → [n_tokens, n_used, n_rows]."""
        context = self.ggml.context()
        x = self.ggml.ggml_new_tensor_3d(context, F32, *reversed(tokens.shape))
        numbers = self.ggml.ggml_new_tensor_2d(context, I32, *reversed(experts.shape))
        result = self.ggml.ggml_mul_mat_id(context, self.tensor, x, numbers)
        inputs = {x: np.ascontiguousarray(tokens), numbers: np.ascontiguousarray(experts)}
        return self.ggml.compute(result, context, inputs, (*experts.shape, self.n_rows))

    def values(self) -> Floats:
        """[n_rows, n], as ggml reads the type."""
        context = self.ggml.context()
        rows = self.ggml.ggml_new_tensor_1d(context, I32, self.n_rows)
        result = self.ggml.ggml_get_rows(context, self.tensor, rows)
        return self.ggml.compute(result, context, {rows: np.arange(self.n_rows, dtype=np.int32)}, (self.n_rows, self.n))


def random_floats(seed: int, *shape: int) -> Floats:
    """With some far from the others, as models have them, and some zero."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) * np.exp2(rng.integers(-6, 3, shape))
    values[..., : COLUMNS // 2] *= rng.integers(0, 2)
    return values.astype(np.float32)


def has_vectors() -> bool:
    """Whether this processor has what the kernels compute with."""
    with open("/proc/cpuinfo") as file:
        return " avx2 " in file.read()
