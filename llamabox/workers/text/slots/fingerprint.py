"""A digest of everything that cells depend on besides their tokens: the model's files, and its settings."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llamabox.bindings.context import Context
from llamabox.errors import ServerFault
from llamabox.machine.niceness import be_nice_in_process

logger = logging.getLogger(__name__)

SIZE = 32
"""Bytes of a digest."""

PIECE = 4 << 20
LEAST_PRIORITY = 19
LENGTH_MATTERS = "rope_factors_long.weight"
"""A model with this tensor turns its keys by other factors in a long context than in a short one."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Digests of the model's files, of all else that a state depends on, and of the projector, where it has media."""

    model: bytes
    settings: bytes
    projector: bytes = bytes(SIZE)


class Fingerprint:
    """The keys of this server's states. `keys` may be called from any thread; the rest belongs to the loading one.

    The files are read when the keys are first asked for, which takes a second for some GB, on a thread that gives way
    to all others: a start does not wait for it, and who never keeps a slot never pays for it. They are held open from
    the start, so that a file that was replaced meanwhile is not taken for the one that was loaded.
    """

    def __init__(self, files: Sequence[Path], settings: bytes, projector: bytes = bytes(SIZE)) -> None:
        self._settings = settings
        self._projector = projector
        self._lock = threading.Lock()
        self._model: bytes | None = None
        self._files = [HeldFile(path) for path in files]

    def keys(self) -> Keys:
        """Raises ServerFault where the files are not what they were, or cannot be read."""
        with self._lock:
            if self._model is None:
                give_way = partial(be_nice_in_process, LEAST_PRIORITY)
                with ThreadPoolExecutor(1, "fingerprint", initializer=give_way) as pool:
                    self._model = pool.submit(self._digest).result()
            return Keys(self._model, self._settings, self._projector)

    def _digest(self) -> bytes:
        started = time.perf_counter()
        whole = hashlib.blake2b(digest_size=SIZE)
        for file in self._files:
            whole.update(file.digest())
        logger.info("the model's digest for slot files took %.1f s", time.perf_counter() - started)
        return whole.digest()

    def close(self) -> None:
        for file in self._files:
            file.close()


class HeldFile:
    """A file as it was when this was made. `close()` is idempotent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._was = self._now()
        except OSError:
            pass  # `digest` says so

    def _now(self) -> tuple[int, int]:
        assert self._descriptor is not None
        stat = os.fstat(self._descriptor)
        return stat.st_size, stat.st_mtime_ns

    def digest(self) -> bytes:
        """Digest of all bytes. Raises ServerFault where the file cannot be read as it was."""
        found = hashlib.blake2b(digest_size=SIZE)
        buffer = memoryview(bytearray(PIECE))
        at = 0
        try:
            if self._descriptor is None:
                raise ServerFault(f"{self._path} could not be read again: slots are neither saved nor restored")
            while n_read := os.preadv(self._descriptor, [buffer], at):
                found.update(buffer[:n_read])
                at += n_read
            is_same = self._now() == self._was
        except OSError as error:
            raise ServerFault(f"{self._path} could not be read again: {error.strerror}") from error
        if not is_same:
            raise ServerFault(f"{self._path} was changed while it was in use: slots are neither saved nor restored")
        return found.digest()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def settings_digest(
    context: Context, build: str, overrides: Mapping[str, int | float | bool | str], steering: bytes
) -> bytes:
    """Digest of all that cells, and the form of a state, depend on besides the model's files and LoRA adapters."""
    params = context.params
    facts = (
        build,
        (params.rope, context.n_ctx_seq if LENGTH_MATTERS in context.model.header.tensors else 0),
        (params.type_k, params.type_v, params.flash_attn, params.swa_full),
        (context.kv_unified, 0 if context.kv_unified else context.n_seq_max),
        sorted(overrides.items()),
    )
    return hashlib.blake2b(repr(facts).encode() + steering, digest_size=SIZE).digest()
