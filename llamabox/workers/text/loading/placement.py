"""Which device got what of a model: told by libllama in its log alone, at load."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llamabox.wire.text_config import TensorBuffers

logger = logging.getLogger(__name__)

LAYER = re.compile(r"load_tensors: layer +(\d+) assigned to device ([^,]+),")
BUFFER = re.compile(r"load_tensors: +(\S+) model buffer size = +([0-9.]+) MiB")
REMOTE = re.compile(r"RPC(\d+)\[(.+)\]")
"""A buffer on an RPC server: the device's number there, and the endpoint."""

BLOCK = re.compile(r"blk\.(\d+)\.")
"""A tensor of a layer."""

CPU = "CPU"

REPORT_SECONDS = 5.0
"""Between two lines about a load that takes long."""


class Placement:
    """Hears the lines of a model's load, on the thread that reads the native log, and not those of a second model's."""

    def __init__(self, remote: Sequence[tuple[str, str, int]], tensor_buffers: TensorBuffers = ()) -> None:
        """`remote` are the RPC devices: ggml's name, endpoint, number on that server.

        `tensor_buffers` say where some tensors are kept, whatever the device of their layer is.
        """
        self._chosen = [(re.compile(pattern), kind) for pattern, kind in tensor_buffers]
        self._names = {(endpoint, index): name for name, endpoint, index in remote}
        self._endpoints = {name: endpoint for name, endpoint, _ in remote}
        self._layers: dict[int, str] = {}  # the device of each; the output comes after the last layer
        self._mebibytes: dict[str, float] = {}  # in the order in which they are loaded
        self._said = time.monotonic()
        self._n_done = 0
        self._is_over = False

    def hear(self, line: str) -> None:
        layer = LAYER.match(line)
        if layer and int(layer[1]) in self._layers:
            self._is_over = True  # the first line of another model
        if self._is_over:
            return
        if layer:
            self._layers[int(layer[1])] = layer[2]
        elif buffer := BUFFER.match(line):
            remote = REMOTE.fullmatch(buffer[1])
            name = self._names.get((remote[2], int(remote[1])), buffer[1]) if remote else local_device(buffer[1])
            self._mebibytes[name] = self._mebibytes.get(name, 0.0) + float(buffer[2])

    def progress(self, part: float) -> None:
        """For the log: how far a load is, 0 to 1, and with which device."""
        sizes = dict(self._mebibytes)
        if not sizes:
            return
        now, done = time.monotonic(), part * sum(sizes.values())
        for index, (name, size) in enumerate(sizes.items()):
            if name not in self._endpoints:  # that is soon done
                done -= size
                continue
            if index >= self._n_done and done >= size > 0 and part > 0:
                self._n_done, self._said = index + 1, now
                logger.info("loading: %s has its %.1f MiB", self._called(name), size)
            elif 0 < done < size and now - self._said >= REPORT_SECONDS:
                self._said = now
                logger.info("loading: %s has %.1f of %.1f MiB", self._called(name), done, size)
            done -= size

    def split(self, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
        """For each device with something of the model: name, server (empty: this machine), layers, bytes of weights.

        `sizes` are the bytes of the file's tensors by name. The output counts as a layer, as with -ngl; the embedding
        of tokens is always here and does not.
        """
        layers = Counter(self._layers.values())
        names = sorted({*layers, *self._mebibytes}, key=lambda name: (name in self._endpoints, name))
        return [
            {
                "device": name,
                "server": self._endpoints.get(name, ""),
                "n_layers": layers[name],
                "size": self._on_cpu(sizes) if name == CPU else round(self._mebibytes.get(name, 0.0) * (1 << 20)),
            }
            for name in names
        ]

    def _on_cpu(self, sizes: Mapping[str, int]) -> int:
        """Bytes. The buffer of a mapped file says nothing: it reaches from its first tensor to its last."""
        here = 0
        for name, size in sizes.items():
            block = BLOCK.match(name)
            at = int(block[1]) if block else max(self._layers) if name.startswith("output") else None
            device = CPU if at is None else self._layers.get(at, CPU)
            device = next((kind for pattern, kind in self._chosen if pattern.search(name)), device)
            if device == CPU:
                here += size
        return here

    def report(self, split: Iterable[Mapping[str, Any]]) -> None:
        """The split as a line of the log."""
        parts = [
            f"{self._called(part['device'])} {part['n_layers']} layers, {part['size'] / (1 << 20):.1f} MiB"
            for part in split
        ]
        logger.info("split: %s", "; ".join(parts))

    def _called(self, name: str) -> str:
        return f"{name} ({self._endpoints[name]})" if name in self._endpoints else name


def local_device(buffer: str) -> str:
    """The device of a buffer here: `CPU_Mapped` and `CPU_REPACK` are the CPU's, as is memory pinned for a GPU."""
    return CPU if buffer.startswith(CPU) or buffer.endswith("_Host") else buffer
