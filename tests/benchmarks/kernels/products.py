"""One product of packed weights beside ggml's own: `python -m tests.benchmarks.kernels.products [--kinds q4_K,q8_0]`.

Prints a Markdown table of µs for a matrix and a number of rows: the quickest of ggml's own ways → ours (ratio). Each
graph multiplies with many matrices in turn, far more than a cache holds, so that a lone row reads them from memory, as
a step of a large model does. The two sides take turns; each figure is the quickest of its rounds, since others may
compute on the machine: with one thread it is the processor's time, which leaves out theirs. The last column says how
fast the first number of rows reads: bytes of the file's matrix over its seconds.
"""

from __future__ import annotations

import argparse
import time
from ctypes import c_int, c_void_p
from typing import Any

import numpy as np

from llamabox.bindings import ffi
from tests.bindings.kernels.ggml_operations import F32, TYPES, Ggml, InitParams

OURS = "CPU_LLAMABOX"
REPACKED = {"q4_0", "q4_K", "iq4_nl", "mxfp4"}
"""The types that ggml itself packs on a processor with AVX2."""


class Products:
    """The products of `n_rows` tokens with each of `n_matrices` weights [n_out, n] of a type in a buffer type."""

    clock = staticmethod(time.perf_counter)

    def __init__(self, ggml: Ggml, kind: str, raw: bytes, shape: tuple[int, int], buffer: Any) -> None:
        self.ggml, self.shape, self.buffer = ggml, shape, buffer
        self.weights: list[Any] = []
        self.contexts: list[tuple[Any, Any]] = []
        self.graphs: dict[int, Any] = {}
        self.kind, self.raw = kind, raw

    def _context(self) -> Any:
        size = 512 * self.ggml.ggml_tensor_overhead() + self.ggml.ggml_graph_overhead()
        return self.ggml.ggml_init(InitParams(size, None, True))

    def _allocated(self, context: Any, buffer: Any) -> None:
        if buffer is None:
            memory = self.ggml.ggml_backend_alloc_ctx_tensors(context, self.ggml.cpu)
        else:
            memory = self.ggml.ggml_backend_alloc_ctx_tensors_from_buft(context, buffer)
        self.contexts.append((context, memory))

    def load(self, n_matrices: int) -> None:
        context = self._context()
        n_out, n = self.shape
        self.weights = [self.ggml.ggml_new_tensor_2d(context, TYPES[self.kind], n, n_out) for _ in range(n_matrices)]
        self._allocated(context, self.buffer)
        for weights in self.weights:
            self.ggml.ggml_backend_tensor_set(weights, self.raw, 0, len(self.raw))

    def seconds(self, n_rows: int, n_matrices: int) -> float:
        """Of one product, from one run of the graph."""
        graph = self.graphs.get(n_rows) or self._graph(n_rows, n_matrices)
        begun = self.clock()
        assert self.ggml.ggml_backend_graph_compute(self.ggml.cpu, graph) == 0
        return (self.clock() - begun) / n_matrices

    def _graph(self, n_rows: int, n_matrices: int) -> Any:
        context = self._context()
        tokens = self.ggml.ggml_new_tensor_2d(context, F32, self.shape[1], n_rows)
        graph = self.graphs[n_rows] = self.ggml.ggml_new_graph(context)
        for weights in self.weights[:n_matrices]:
            self.ggml.ggml_build_forward_expand(graph, self.ggml.ggml_mul_mat(context, weights, tokens))
        self._allocated(context, None)
        values = np.random.default_rng(0).standard_normal((n_rows, self.shape[1])).astype(np.float32)
        self.ggml.ggml_backend_tensor_set(tokens, values.ctypes.data, 0, values.nbytes)
        assert self.ggml.ggml_backend_graph_compute(self.ggml.cpu, graph) == 0
        return graph

    def free(self) -> None:
        for context, memory in self.contexts:
            self.ggml.ggml_backend_buffer_free(memory)
            self.ggml.ggml_free(context)


def measure(ggml: Ggml, kind: str, args: argparse.Namespace) -> dict[int, tuple[float, float]]:
    """Seconds of ggml's own and of our product, for each number of rows; and the bytes of a matrix."""
    n_out, n = args.shape
    weights = (np.random.default_rng(1).standard_normal((n_out, n)) / 16).astype(np.float32)
    raw = ggml.quantized(kind, weights)
    n_matrices = min(max(args.mib * 2**20 // len(raw), 2), 250)
    found: dict[int, tuple[float, float]] = {}
    sides = [
        Products(ggml, kind, raw, args.shape, one)
        for one in (
            ggml.types["CPU_REPACK"] if kind in REPACKED and "CPU_REPACK" in ggml.types else None,
            ggml.types[OURS],
        )
    ]
    try:
        for side in sides:
            side.load(n_matrices)
        for n_rows in args.rows:
            n_used = n_matrices if n_rows <= 4 else max(n_matrices * 4 // n_rows, 2)
            rounds = [[side.seconds(n_rows, n_used) for side in sides] for _ in range(args.rounds)]
            theirs, ours = (min(one) for one in zip(*rounds, strict=True))
            found[n_rows] = (theirs, ours)
    finally:
        for side in sides:
            side.free()
    speeds = " → ".join(f"{len(raw) / one / 1e9:.1f}" for one in found[args.rows[0]])
    cells = (f"{a * 1e6:,.0f} → {b * 1e6:,.0f} ({a / b:.2f})" for a, b in found.values())
    print(f"| {kind} | {' | '.join(cells)} | {speeds} |", flush=True)
    return found


def numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(TYPES), help="types of weights")
    parser.add_argument("--rows", type=numbers, default=[1, 2, 4, 8, 16, 32, 512], help="tokens of a product")
    parser.add_argument("--shape", type=numbers, default=[2048, 2048], help="rows and columns of a matrix")
    parser.add_argument("--mib", type=int, default=160, help="MiB of weights that a graph of a lone row reads")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.shape = tuple(args.shape)
    if args.threads == 1:
        Products.clock = staticmethod(time.thread_time)
    ggml = Ggml(ffi.load())
    ggml.function("ggml_backend_set_n_threads", None, c_void_p, c_int)(ggml.cpu, args.threads)
    columns = [f"{n} row{'s' * (n > 1)}" for n in args.rows]
    print(f"| weights | {' | '.join(columns)} | {columns[0]}, GB/s |")
    print("|" + " --- |" * (len(columns) + 2))
    for kind in args.kinds.split(","):
        measure(ggml, kind, args)


if __name__ == "__main__":
    main()
