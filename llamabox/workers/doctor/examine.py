"""Look at the native libraries: `python -m llamabox.workers.doctor.examine text|images PREFIX [FILE…]`.

A process of its own for each library: their ggmls must not meet, and a library that does not fit the processor ends it.
Writes JSON objects to stdout, a line each. `{"begin": step}` comes before a step, so that whoever reads knows where the
process ended; then what the step found, or an error as `errors.to_wire()`. Steps behind a failed one are left out.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson

from llamabox.bindings import backend
from llamabox.bindings import prefix as prefixes
from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context, ContextParams
from llamabox.bindings.ffi import Native, build_info, load, load_images
from llamabox.bindings.files import gguf
from llamabox.bindings.log import LogPump
from llamabox.bindings.model import Model, ModelParams, type_sizes
from llamabox.errors import LlamaboxError, to_wire
from llamabox.workers.doctor.tiny import ANSWER, N_CTX, PROMPT, made_model

T = TypeVar("T")
N_THREADS = 2
"""For so small a model more of them would wait for each other."""


class Reporter:
    """Writes what steps find to descriptor `fd`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def step(self, name: str, run: Callable[[], T], shown: Callable[[T], dict[str, Any]]) -> T | None:
        """Run a step and write what `shown` makes of its result. None where it failed, which is written as well."""
        self._write({"begin": name})
        try:
            found = run()
            self._write({"step": name, **shown(found)})
        except LlamaboxError as error:
            self._write({"step": name, **to_wire(error)})
            return None
        return found

    def _write(self, value: dict[str, Any]) -> None:
        os.write(self._fd, orjson.dumps(value, default=str) + b"\n")


def main(library: str, prefix: str, files: Sequence[str]) -> int:
    """Returns the exit status: 0, whatever was found."""
    # The libraries may print, which must not come between the lines.
    reporter = Reporter(os.dup(1))
    os.dup2(2, 1)
    examine = _examine_images if library == "images" else _examine_text
    examine(reporter, prefix or None, files)
    return 0


def _examine_text(reporter: Reporter, prefix: str | None, files: Sequence[str]) -> None:
    found = reporter.step("prefix", lambda: _checked(prefix), _shown_prefix)
    if found is None:
        return
    native = reporter.step("load", lambda: load(prefix), lambda native: {"version": build_info(native)["version"]})
    if native is None:
        return
    devices = reporter.step("devices", lambda: _start(native), lambda found: found)
    if devices is None:
        return
    for device in devices["devices"]:
        if device["kind"] != "accel":  # beside the CPU, and never alone
            reporter.step(f"compute {device['name']}", partial(_compute, native, device["name"], device["kind"]), dict)
    for file in files:
        reporter.step(f"file {file}", partial(_measure, native, Path(file)), dict)


def _examine_images(reporter: Reporter, prefix: str | None, files: Sequence[str]) -> None:
    reporter.step("load", lambda: load_images(prefix), lambda native: {"version": native.prefix.manifest["version"]})


def _checked(prefix: str | None) -> prefixes.Prefix:
    """The prefix with its files compared. Raises NativeMissing, NativeMismatch."""
    found = prefixes.read(prefix)
    prefixes.verify(found)
    return found


def _shown_prefix(found: prefixes.Prefix) -> dict[str, Any]:
    names = ("version", "commit", "backend", "portable", "machine", "lacks")
    images = found.manifest.get("images")
    return {
        "path": str(found.path),
        **{name: found.manifest.get(name) for name in names},
        "images": None if images is None else {"portable": images.get("portable"), "version": images.get("version")},
    }


def _start(native: Native) -> dict[str, Any]:
    """Find the devices. `said` are the lines of the log from warnings on: of a driver that is missing, for instance."""
    said: list[str] = []
    logger = logging.getLogger("llamabox.doctor")
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    with LogPump(native, logger):
        backend.start(native)
        devices = backend.devices(native)
    fields = ("name", "description", "kind", "backend", "memory_free", "memory_total")
    return {
        "devices": [{field: getattr(device, field) for field in fields} for device in devices],
        "system_info": backend.system_info(native).strip(),
        "kernels": backend.kernels(native),
        "said": said[:20],
    }


def _compute(native: Native, device: str, kind: str) -> dict[str, Any]:
    """What the made model writes on a device, and how long loading and computing took. Raises LlamaboxError."""
    started = time.monotonic()
    where = ModelParams(devices=(), n_gpu_layers=0) if kind == "cpu" else ModelParams(devices=(device,))
    params = ContextParams(n_ctx=N_CTX, n_batch=N_CTX, n_ubatch=N_CTX, n_seq_max=1, n_threads=N_THREADS)
    with made_model() as path, Model.load(native, path, where) as model, Context(model, params) as context:
        tokens = written(native, context)
    return {"tokens": tokens, "expected": list(ANSWER), "seconds": round(time.monotonic() - started, 3)}


def written(native: Native, context: Context) -> list[int]:
    """The likeliest tokens behind the prompt; -1, and no more, where numbers are none."""
    batch = NativeBatch(native, N_CTX)
    batch.logits[batch.extend(PROMPT, 0, 0)[-1]] = 1
    tokens: list[int] = []
    while True:
        context.decode(batch)
        best = context.top_two(batch.n_tokens - 1)
        tokens.append(-1 if best is None else best[0][0])
        if best is None or len(tokens) == len(ANSWER):
            return tokens
        batch.clear()
        batch.add(tokens[-1], len(PROMPT) + len(tokens) - 1, 0, wants_logits=True)


def _measure(native: Native, path: Path) -> dict[str, Any]:
    """What is in a GGUF file, with all of its parts. Raises ModelLoadError for one that is damaged or no model."""
    header = gguf.check_model(path, type_sizes(native))
    n_bytes = sum(tensor.n_bytes for tensor in header.tensors.values())
    return {"architecture": header.text("general.architecture"), "n_bytes": n_bytes}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "", sys.argv[3:]))
