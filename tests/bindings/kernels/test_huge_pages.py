"""Packed weights lie in huge pages, which a start does not wait for where they come slowly (native/added/pages.h)."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from ctypes import c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np
import pytest

from tests.bindings.kernels.ggml_operations import Floats, Ggml, Matrix, has_vectors, random_floats

HUGE_PAGE = 2 << 20
N = 2048
"""Columns."""
N_ROWS = 16384
"""Rows: with q8_0 17 huge pages."""
USUAL = 1_000_000
"""PATIENCE of pages.h."""

pytestmark = pytest.mark.skipif(
    not has_vectors() or not Path("/sys/kernel/mm/transparent_hugepage").exists(),
    reason="nothing is packed without vectors, and only Linux has pages of two sizes",
)


@pytest.fixture
def be_patient(ggml: Ggml) -> Iterator[Callable[[int], None]]:
    """Sets for how many ns a huge page may be waited for."""
    path = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libggml-cpu" in line)
    patience = ctypes.CDLL(path).llamabox_kernels_patience
    patience.argtypes, patience.restype = [c_int64], None
    yield patience
    patience(USUAL)


def packed(ggml: Ggml, seed: int, n_rows: int = N_ROWS) -> Matrix:
    few = ggml.quantized("q8_0", random_floats(seed, 64, N))
    return Matrix(ggml, "q8_0", np.empty((n_rows, N), np.float32), ggml.types["CPU_LLAMABOX"], few * (n_rows // 64))


def whole_pages(matrix: Matrix) -> tuple[int, int]:
    """Address and bytes of what could be in huge pages."""
    lib = ctypes.CDLL(str(matrix.ggml.library))
    base, size = lib.ggml_backend_buffer_get_base, lib.ggml_backend_buffer_get_size
    base.argtypes, base.restype, size.argtypes, size.restype = [c_void_p], c_void_p, [c_void_p], c_size_t
    start, end = base(matrix.memory), base(matrix.memory) + size(matrix.memory)
    first = -(-start // HUGE_PAGE) * HUGE_PAGE
    return first, end // HUGE_PAGE * HUGE_PAGE - first


def n_huge(address: int, n_bytes: int) -> int:
    """Bytes in huge pages, of all mappings that a range of addresses is in."""
    found, is_in = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if not head.endswith(":"):
            start, end = (int(part, 16) for part in head.split("-"))
            is_in = start < address + n_bytes and address < end
        elif is_in and head == "AnonHugePages:":
            found += int(line.split()[1]) << 10
    return found


def one_by_one(matrix: Matrix, tokens: Floats) -> list[bytes]:
    return [matrix.times(tokens[i : i + 1]).tobytes() for i in range(len(tokens))]


def test_weights_whose_huge_pages_come_slowly_get_them_later_and_stay_the_same(
    ggml: Ggml, be_patient: Callable[[int], None]
) -> None:
    tokens = random_floats(1, 3, N)
    be_patient(1 << 60)
    with packed(ggml, 7) as matrix:
        expected = one_by_one(matrix, tokens)
    be_patient(-1)  # every page comes too slowly
    with packed(ggml, 7) as matrix:
        address, n_bytes = whole_pages(matrix)
        assert n_huge(address, n_bytes) < n_bytes // 2
        assert one_by_one(matrix, tokens) == expected
        until = time.monotonic() + 120
        while n_huge(address, n_bytes) < n_bytes and time.monotonic() < until:
            assert one_by_one(matrix, tokens) == expected  # while pages are put into each other's place
        assert n_huge(address, n_bytes) >= n_bytes
        assert one_by_one(matrix, tokens) == expected


def test_a_model_may_go_while_its_pages_are_mended(ggml: Ggml, be_patient: Callable[[int], None]) -> None:
    be_patient(-1)
    tokens = random_floats(2, 2, N)
    with packed(ggml, 8, 4096) as stays:
        expected = one_by_one(stays, tokens)
        until = time.monotonic() + 3  # mending begins after 1.5 s
        while time.monotonic() < until:
            with packed(ggml, 9, 4096), packed(ggml, 10, 4096) as other:
                other.times(tokens)
            assert one_by_one(stays, tokens) == expected
