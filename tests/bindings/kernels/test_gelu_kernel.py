"""GELU, which is compiled into ggml's CPU backend."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bindings.kernels.ggml_operations import F32, Floats, Ggml, has_vectors, random_floats


def gelu(ggml: Ggml, x: Floats) -> Floats:
    context = ggml.context()
    tensor = ggml.ggml_new_tensor_2d(context, F32, x.shape[1], x.shape[0])
    return ggml.compute(ggml.ggml_gelu(context, tensor), context, {tensor: np.ascontiguousarray(x)}, x.shape)


@pytest.mark.parametrize("n", [1, 7, 16, 333])
def test_it_is_the_function_of_every_element(ggml: Ggml, n: int) -> None:
    """ggml's own, which is there without AVX2, rounds to half precision."""
    x = random_floats(n, 5, n) * 4
    exact = x.astype(np.float64)
    expected = exact / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (exact + 0.044715 * exact**3)))
    assert (np.abs(gelu(ggml, x) - expected) <= (2e-6 if has_vectors() else 2e-3) * np.abs(exact)).all()


def test_it_is_defined_where_numbers_end(ggml: Ggml) -> None:
    x = np.array([[0, -10, -11, -1e30, -np.inf, 10, 1e30, np.inf, np.nan]], np.float32)
    found = gelu(ggml, x)
    np.testing.assert_array_equal(found, np.array([[0, 0, 0, 0, 0, 10, 1e30, np.inf, np.nan]], np.float32))
