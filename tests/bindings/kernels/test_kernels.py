"""Multiplication with packed weights, which is compiled into ggml's CPU backend."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from ctypes import c_int, c_void_p
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import build_native
from llamabox.bindings import backend, ffi
from tests.bindings.kernels.ggml_operations import COLUMNS, TYPES, Floats, Ggml, Matrix, has_vectors, random_floats

ROOT = Path(build_native.__file__).parent


@pytest.fixture(scope="module")
def kinds(ggml: Ggml) -> list[str]:
    """The types that this processor has kernels for."""
    found = backend.kernels(ffi.load())
    if found is None:
        return []
    return [kind for kind in TYPES if found != "AVX-VNNI" or not kind.endswith("_K")]


WIDE = {"q4_K", "q5_K", "q6_K", "iq4_xs"}
"""The types with blocks of 256 columns."""


def as_bytes(kind: str, tokens: Floats) -> NDArray[np.float64]:
    """What is left of tokens when each 32 columns are bytes with one scale: the oracle for native/added/tokens.h.

    For types with blocks of 256 columns the scale is that of the block's largest column, halved up to three times.
    Beside half precision tokens stay what they are.
    """
    if kind == "f16":
        return tokens.astype(np.float64)
    blocks = tokens.reshape(-1, COLUMNS)
    most = np.abs(blocks).max(axis=1, keepdims=True)
    if kind in WIDE:
        of_block = np.repeat(most.reshape(-1, 256 // COLUMNS).max(axis=1), 256 // COLUMNS)[:, np.newaxis]
        halvings = [of_block / np.float32(2**n) for n in range(4)]
        most = np.min([np.where(one >= most, one, of_block) for one in halvings], axis=0)
    inverse = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most > 0)
    quants = np.rint(blocks * inverse).astype(np.float64)
    return (quants * (most / np.float32(127)).astype(np.float64)).reshape(tokens.shape)


def test_it_is_there_on_a_processor_that_has_the_vectors(ggml: Ggml) -> None:
    assert ("CPU_LLAMABOX" in ggml.types) == has_vectors()
    assert (backend.kernels(ffi.load()) is not None) == has_vectors()


def test_no_kernel_of_ggml_s_for_amx_is_there(ggml: Ggml) -> None:
    """GCC 12 compiles them to code that ends the process, and a row's result would depend on the rows beside it."""
    assert "AMX" not in ggml.types


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
                expected = as_bytes(kind, tokens) @ values.T
                scale = np.abs(as_bytes(kind, tokens)) @ np.abs(values).T + 1e-9
                assert (np.abs(packed.times(tokens) - expected) / scale).max() < 1e-5, (kind, n_rows, n, n_tokens)


def test_small_columns_keep_their_bits_beside_large_ones(ggml: Ggml, kinds: list[str]) -> None:
    """Some columns of a token are often many times as large as the others."""
    sizes = 2.0 ** -np.array([0, 1, 2, 3, 4, 7, 12, 0.9])
    for seed, kind in enumerate(kinds):
        with (
            Matrix(ggml, kind, random_floats(seed, 16, 512) / 16, None) as plain,
            Matrix(ggml, kind, random_floats(seed, 16, 512) / 16, ggml.types["CPU_LLAMABOX"]) as packed,
        ):
            values = plain.values().astype(np.float64)
            tokens = random_floats(seed, 3, 512) * np.tile(np.repeat(sizes, COLUMNS), 2).astype(np.float32)
            expected = as_bytes(kind, tokens) @ values.T
            scale = np.abs(as_bytes(kind, tokens)) @ np.abs(values).T
            assert (np.abs(packed.times(tokens) - expected) / scale).max() < 1e-5, kind


SCALES = {"q4_1": [0, 2], "q5_1": [0, 2], "q4_K": [0, 2], "q5_K": [0, 2], "q6_K": [-2]}
"""Where the blocks of a type have numbers of 16 bits; others have one at the start."""


def filled_blocks(ggml: Ggml, kind: str, byte: int, n_rows: int, n: int) -> bytes:
    """Blocks whose bytes are all equal, apart from their scales of 16 bits."""
    rows = np.full((n_rows, ggml.ggml_row_size(TYPES[kind], n)), byte, np.uint8)
    size = ggml.ggml_row_size(TYPES[kind], 256 if kind.endswith(("_K", "_xs")) else COLUMNS)
    blocks = rows.reshape(-1, size)
    if kind == "mxfp4":
        blocks[:, 0] = 120
        return rows.tobytes()
    if kind == "q6_K" and byte == 0:  # the quants are the least; so may the whole scales be
        blocks[:, 192:208] = 0x80
    for at in SCALES.get(kind, [0]):
        blocks[:, [at, at + 1]] = np.frombuffer(np.float16(2**-7).tobytes(), np.uint8)
    return rows.tobytes()


@pytest.mark.parametrize("byte", [0x00, 0x77, 0x7F, 0x80, 0x88, 0xFF], ids=hex)
def test_sums_of_the_largest_products_do_not_overflow(ggml: Ggml, kinds: list[str], byte: int) -> None:
    """All quants of a row are one of the ends of their range, and so are the tokens' bytes."""
    signs = np.array([1, -1])[np.arange(256) % 2]
    tokens = np.stack([np.ones(256), -np.ones(256), signs, np.repeat([1, -1], 128)]).astype(np.float32)
    for kind in set(kinds) - {"f16"}:
        raw, shape = filled_blocks(ggml, kind, byte, 16, 256), np.zeros((16, 256), np.float32)
        with (
            Matrix(ggml, kind, shape, None, raw) as plain,
            Matrix(ggml, kind, shape, ggml.types["CPU_LLAMABOX"], raw) as packed,
        ):
            values = plain.values().astype(np.float64)
            scale = np.abs(tokens) @ np.abs(values).T + 1e-9
            assert (np.abs(packed.times(tokens) - tokens @ values.T) / scale).max() < 1e-5, kind


def test_packed_weights_are_no_larger_than_the_file_s(ggml: Ggml, kinds: list[str]) -> None:
    """A lone step's time is that of reading them."""
    for kind in kinds:
        packed_type = ggml.types["CPU_LLAMABOX"]
        with Matrix(ggml, kind, np.zeros((32, 1024), np.float32), packed_type) as packed:
            size = ggml.ggml_backend_buft_get_alloc_size(packed_type, packed.tensor)
        assert size <= 32 * ggml.ggml_row_size(TYPES[kind], 1024), kind


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


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_none_in_its_own_row_and_in_no_other(ggml: Ggml, kinds: list[str], value: float) -> None:
    """A finite product of it would be an answer made of nothing; so would one that -inf makes of a maximum."""
    for seed, kind in enumerate(kinds):
        with Matrix(ggml, kind, random_floats(seed, 32, 512), ggml.types["CPU_LLAMABOX"]) as packed:
            tokens = random_floats(seed, 9, 512)
            expected = packed.times(tokens)
            for column in (0, 5, 31, 32, 300, 511):
                tokens[4] = random_floats(seed + column, 512)
                tokens[4, column] = value
                found = packed.times(tokens)
                assert not np.isfinite(found[4]).any() if kind == "f16" else np.isnan(found[4]).all(), (kind, column)
                np.testing.assert_array_equal(np.delete(found, 4, axis=0), np.delete(expected, 4, axis=0))


def test_the_first_rows_of_packed_weights_can_be_looked_at(ggml: Ggml, kinds: list[str]) -> None:
    for seed, kind in enumerate(kinds):
        with Matrix(ggml, kind, random_floats(seed, 64, 256), ggml.types["CPU_LLAMABOX"]) as packed:
            tokens = random_floats(seed, 3, 256)
            np.testing.assert_array_equal(packed.part_times(0, 32, tokens), packed.times(tokens)[:, :32])


VIEW = """
from tests.bindings.kernels.ggml_operations import Ggml, Matrix, random_floats
from llamabox.bindings import ffi
ggml = Ggml(ffi.load())
with Matrix(ggml, "q4_0", random_floats(1, 64, 256), ggml.types["CPU_LLAMABOX"]) as packed:
    packed.part_times(32, 32, random_floats(1, 3, 256))
"""


def test_other_views_of_packed_weights_end_the_process(kinds: list[str]) -> None:
    """They would be read from a place that only the file's layout knows: another answer, and nobody would notice."""
    if not kinds:
        return
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GGML_NO_BACKTRACE": "1"}
    done = subprocess.run([sys.executable, "-c", VIEW], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGABRT, done
    assert "view_offs == 0" in done.stderr


def distinct_experts(seed: int, n_tokens: int, n_used: int, n_experts: int) -> NDArray[np.int32]:
    """[n_tokens, n_used]; the first expert is chosen by all, the last by nobody."""
    rng = np.random.default_rng(seed)
    others = [rng.permutation(np.arange(1, n_experts - 1))[: n_used - 1] for _ in range(n_tokens)]
    return np.array([[0, *chosen] for chosen in others], np.int32)


@pytest.fixture(scope="module")
def expert_kinds(kinds: list[str]) -> list[str]:
    """The same for a mixture of experts."""
    packed = [kind for kind in kinds if kind != "f16"]
    return [*packed, *(kind for kind in ("q4_K", "q5_K", "q6_K") if kinds and kind not in kinds)]


@pytest.mark.parametrize("n_inputs", [1, 3], ids=["one for all", "one for each"])
@pytest.mark.parametrize("n_tokens", [1, 2, 40, 150])
def test_experts_multiply_those_who_visit_them(
    ggml: Ggml, expert_kinds: list[str], n_tokens: int, n_inputs: int
) -> None:
    for seed, kind in enumerate(expert_kinds):
        weights = random_floats(seed, 6, 48, 256) / 16
        experts = distinct_experts(seed, n_tokens, 3, 6)
        tokens = random_floats(seed, n_tokens, n_inputs, 256)
        with Matrix(ggml, kind, weights, ggml.types["CPU_LLAMABOX"]) as packed:
            found = packed.visited(tokens, experts)
            np.testing.assert_array_equal(packed.visited(tokens[-1:], experts[-1:]), found[-1:])
        for expert in range(5):
            token, place = np.nonzero(experts == expert)
            with Matrix(ggml, kind, weights[expert], None) as plain:
                values = plain.values().astype(np.float64)
            visitors = as_bytes(kind, tokens[token, place % n_inputs])
            scale = np.abs(visitors) @ np.abs(values).T + 1e-9
            assert np.all(np.abs(found[token, place] - visitors @ values.T) < 1e-5 * scale), (kind, expert)


def test_threads_do_not_show_in_experts(ggml: Ggml, expert_kinds: list[str]) -> None:
    set_threads = ggml.function("ggml_backend_set_n_threads", None, c_void_p, c_int)
    for seed, kind in enumerate(expert_kinds):
        tokens, experts = random_floats(seed, 30, 1, 256), distinct_experts(seed, 30, 2, 5)
        with Matrix(ggml, kind, random_floats(seed, 5, 80, 256), ggml.types["CPU_LLAMABOX"]) as packed:
            results = []
            for n_threads in (1, 2, 7):
                set_threads(ggml.cpu, n_threads)
                results.append(packed.visited(tokens, experts))
            set_threads(ggml.cpu, 1)
            for result in results[1:]:
                np.testing.assert_array_equal(result, results[0])


def test_what_is_no_number_stays_with_the_token_that_has_it(ggml: Ggml, expert_kinds: list[str]) -> None:
    for seed, kind in enumerate(expert_kinds):
        tokens, experts = random_floats(seed, 12, 1, 256), distinct_experts(seed, 12, 2, 5)
        with Matrix(ggml, kind, random_floats(seed, 5, 48, 256), ggml.types["CPU_LLAMABOX"]) as packed:
            expected = packed.visited(tokens, experts)
            tokens[7, 0, 100] = np.nan
            found = packed.visited(tokens, experts)
        assert np.isnan(found[7]).all(), kind
        np.testing.assert_array_equal(np.delete(found, 7, axis=0), np.delete(expected, 7, axis=0))
