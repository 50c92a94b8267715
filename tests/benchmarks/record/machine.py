"""What this machine can do at the most: how fast it reads memory, and how many products of bytes it makes a second.

Measured by peaks.c, which the system's C compiler compiles for this processor.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("peaks.c")
N_READ = 256 << 20
"""Bytes that each thread reads: more than any cache holds."""
TRIES = 5
SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes read a second, by one thread and by all; products of two bytes that are added up, a second, by all."""

    processor: str
    way: str  # how it multiplies bytes
    n_threads: int
    read_alone: float
    read: float
    products: float

    def __str__(self) -> str:
        return (
            f"{self.processor}, {self.n_threads} threads: reads {self.read_alone / 1e9:.1f} GB/s by one thread, "
            f"{self.read / 1e9:.1f} by all, and multiplies {self.products / 1e9:.0f} G bytes/s ({self.way})"
        )


def measure(n_threads: int, folder: Path) -> Machine:
    """Measure for some three seconds. `folder` is for what is compiled. Raises RuntimeError where that cannot be."""
    library = _compile(folder)
    return Machine(
        processor=_processor(),
        way=library.peaks_way().decode(),
        n_threads=n_threads,
        read_alone=_read_speed(library, 1),
        read=_read_speed(library, n_threads),
        products=_product_speed(library, n_threads),
    )


def _compile(folder: Path) -> ctypes.CDLL:
    target = folder / "peaks.so"
    words = [os.environ.get("CC", "cc"), "-O3", "-march=native", "-shared", "-fPIC", "-o", str(target), str(SOURCE)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RuntimeError(f"there is no C compiler {words[0]} to measure this machine with: set CC to one") from None
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{done.stderr}")
    library = ctypes.CDLL(str(target))
    if not hasattr(library, "peaks_way"):
        raise RuntimeError(f"{SOURCE.name} knows the vectors of x86-64 from AVX2 on alone")
    library.peaks_way.restype = ctypes.c_char_p
    library.peaks_read.argtypes = ctypes.c_void_p, ctypes.c_size_t
    library.peaks_multiply.argtypes = ctypes.c_int64, ctypes.c_char_p
    library.peaks_read.restype = library.peaks_multiply.restype = ctypes.c_int64
    return library


def _read_speed(library: ctypes.CDLL, n_threads: int) -> float:
    buffers = [ctypes.create_string_buffer(N_READ) for _ in range(n_threads)]
    for buffer in buffers:
        ctypes.memset(buffer, 1, N_READ)  # else all of it would be one page of zeros
    addresses = [ctypes.addressof(buffer) for buffer in buffers]
    return n_threads * N_READ / min(_together(lambda i: library.peaks_read(addresses[i], N_READ), n_threads))


def _product_speed(library: ctypes.CDLL, n_threads: int) -> float:
    operands = bytes([1] * 128)
    start = time.perf_counter()
    n_made = int(library.peaks_multiply(1 << 20, operands))
    n = int((1 << 20) * SECONDS / (time.perf_counter() - start))
    n_made = n_made // (1 << 20) * n
    return n_threads * n_made / min(_together(lambda i: library.peaks_multiply(n, operands), n_threads))


def _together(work: Callable[[int], object], n_threads: int) -> list[float]:
    """Seconds that each of some tries took from the first thread's start to the last one's end.

    ctypes lets the interpreter go meanwhile, so that they run side by side.
    """
    took = []
    for _ in range(TRIES):
        gate = threading.Barrier(n_threads)
        spans: list[tuple[float, float]] = []

        def run(i: int, gate: threading.Barrier = gate, spans: list[tuple[float, float]] = spans) -> None:
            gate.wait()
            start = time.perf_counter()
            work(i)
            spans.append((start, time.perf_counter()))

        threads = [threading.Thread(target=run, args=(i,)) for i in range(n_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took.append(max(end for _, end in spans) - min(start for start, _ in spans))
    return took


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine
