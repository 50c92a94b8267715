"""What a trial found, kept for the next start: it takes as long as a dozen steps, and finds the same every time.

That is so as long as nothing changes of what computes: libraries, processor, model file and settings are the key. The
driver of a GPU is in none of these, so what computes on one is tried at each load.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llamabox.artifacts import caches
from llamabox.bindings.context import Context

VERSION = 1
"""Goes up where trial.py tries something else."""

VARIABLE = "LLAMABOX_TRIALS"
"""Names another folder than the usual one; empty: nothing is kept."""

FOLDER = "trials"
MOST = 256
"""Verdicts that are kept. They take some bytes each."""

CPU_INFO = Path("/proc/cpuinfo")
COUNTS = ("model name", "flags", "microcode", "CPU implementer", "CPU part", "CPU revision", "Features")
"""The fields of a processor that say how it computes, on x86 and on ARM."""

STEERS = ("GGML_", "LLAMA_", "OMP_", "GOMP_")
"""Beginnings of the environment's variables that may change how ggml computes."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The place of one trial's verdict: why a row is not steady, or that it is."""

    folder: Path
    key: str

    def recall(self) -> str | None:
        """The reason, empty where rows are steady; None where nothing is known."""
        with contextlib.suppress(OSError, ValueError):
            path = self.folder / self.key
            reason = path.read_text("utf-8")
            os.utime(path)
            return reason
        return None

    def keep(self, reason: str) -> None:
        """Does nothing where no file can be made."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._prune()
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=self.folder, prefix=".", delete=False) as file:
                file.write(reason)
            os.replace(file.name, self.folder / self.key)

    def _prune(self) -> None:
        """Make room for one by taking those away that were not asked for longest."""
        found = sorted(self.folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        for path in found[: max(0, len(found) - MOST + 1)]:
            path.unlink(missing_ok=True)


def verdict_of(context: Context, *, tile: int, environ: Mapping[str, str] = os.environ) -> Verdict | None:
    """The verdict on rows of `context`, which must compute on the CPU alone.

    None where none may be kept, or the processor is not known.
    """
    folder = folder_of(environ)
    processor = describe_processor()
    if folder is None or processor is None or caches.why_not(folder):
        return None
    model, native = context.model, context.native
    whole = hashlib.sha256()
    for part in (
        VERSION,
        native.prefix.manifest,
        processor,
        sorted(one for one in environ.items() if one[0].startswith(STEERS)),
        model.params,
        context.params,
        (context.n_threads, context.n_ctx_seq, context.n_batch, context.n_ubatch, context.n_seq_max, tile),
    ):
        whole.update(repr(part).encode() + b"\0")
    try:
        for path in model.header.files:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                whole.update(repr((found.st_size, found.st_mtime_ns)).encode())
                whole.update(file.read(model.header.data_start))
    except OSError:
        return None
    return Verdict(folder, whole.hexdigest()[:32])


def folder_of(environ: Mapping[str, str]) -> Path | None:
    named = environ.get(VARIABLE)
    if named is not None:
        return Path(named).absolute() if named else None
    return caches.usual(FOLDER, environ)


def describe_processor(info: Path = CPU_INFO) -> str | None:
    """What decides how this machine computes, by its first processor; None where the system does not tell."""
    try:
        first = info.read_text().partition("\n\n")[0]
    except OSError:
        return None
    pairs = (line.partition(":") for line in first.splitlines())
    known = [f"{name.strip()}:{value}" for name, _, value in pairs if name.strip() in COUNTS]
    return "\n".join([platform.machine(), *known]) if known else None
