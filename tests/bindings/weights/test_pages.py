"""Pages of mapped files, and cells that nobody has used, take no memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context, ContextParams, FlashAttention
from llamabox.bindings.ffi import Native
from llamabox.bindings.model import Model
from llamabox.bindings.weights.pages import forget_pages, untouched

SIZE = 8 << 20


def resident(path: Path) -> int:
    """Bytes of a file that are in this process's memory through its maps."""
    found, at = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0] and not line.split()[0].endswith(":"):
            at = line.endswith(str(path))
        elif at and line.startswith("Rss:"):
            found += int(line.split()[1]) << 10
    return found


def anonymous() -> int:
    """Bytes of this process's own memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def test_what_was_read_goes_and_comes_back(native: Native, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        assert sum(data[:: mmap.PAGESIZE]) == 0
        assert resident(path) == SIZE
        forget_pages(native)
        assert resident(path) == 0
        assert data[SIZE - 256 :] == bytes(range(256))


def test_maps_that_may_be_written_stay(native: Native, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_bytes(bytes(SIZE))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        data[:] = b"x" * SIZE
        forget_pages(native)
        assert resident(path) == SIZE


@pytest.fixture
def big_context(model: Model) -> Iterator[Context]:
    """94 MB of cells for two sequences."""
    params = ContextParams(
        n_ctx=4096,
        n_batch=64,
        n_ubatch=64,
        n_seq_max=2,
        n_threads=1,
        kv_unified=False,
        flash_attn=FlashAttention.ON,  # the scores of other attention take memory, too
    )
    with Context(model, params) as made:
        yield made


def test_cells_take_memory_as_they_are_used(model: Model, big_context: Context) -> None:
    assert untouched(model.native) > 90e6
    unused = anonymous()
    cells = 4096 * 30 * 2 * 192 * 2
    batch = NativeBatch(big_context.native, 64)

    def decode(first: int) -> None:
        batch.clear()
        batch.extend([1000 + i for i in range(64)], first, 0)
        big_context.decode(batch)
        big_context.synchronize()

    decode(0)  # the buffers that are computed in are touched, too
    few = anonymous()
    for first in range(64, 1024, 64):
        decode(first)
    many = anonymous()
    assert cells > 90e6
    assert few - unused < cells / 4
    assert cells / 8 < many - few < cells / 2, "a quarter of the cells"
    big_context.memory.clear(data=True)
    assert anonymous() < few + cells / 16
    decode(0)
