"""The cache of builds, by the digest of what went into them; a lock for each; and progress on stderr."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llamabox.artifacts import caches
from native.build.sources import BuildError


class Progress:
    """Says how far the build is: on a terminal in place, elsewhere a line for every tenth."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._tty = sys.stderr.isatty()
        self._said = -1

    def __call__(self, state: str) -> None:
        done, _, total = state.partition("/")
        if not (done.isdigit() and total.isdigit()):
            self._write(f"{self._label}: {state}", end="\n")
        elif self._tty:
            self._write(
                f"\r{self._label}: {state} ({int(done) * 100 // int(total)} %)", end="\n" if done == total else ""
            )
        elif (tenth := int(done) * 10 // int(total)) > self._said:
            self._said = tenth
            self._write(f"{self._label}: {state} ({int(done) * 100 // int(total)} %)", end="\n")

    def _write(self, text: str, end: str) -> None:
        sys.stderr.write(text + end)
        sys.stderr.flush()


def cache_folder() -> Path:
    """Made if need be. Says why where it is not the usual one; BuildError where there is none."""
    try:
        cache = caches.cache("native", os.environ)
    except caches.NoCache as error:
        raise BuildError(str(error)) from error
    if cache.note:
        say_once(cache.note)
    return cache.path


@functools.cache
def say_once(note: str) -> None:
    Progress("llamabox native")(note)


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


def cpu_features() -> str:
    """The processor's features, which GGML_NATIVE adapts to: a home shared by unlike machines has a build for each."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return digest(sorted(line.partition(":")[2].split()))
    return platform.processor()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a thing that is built. Another process that builds it waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            Progress("llamabox native")("waiting for another build of the same")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def publish(staging: Path, target: Path) -> None:
    """Move a finished folder to its place, over what may be there. Running processes keep the files they mapped."""
    target.parent.mkdir(parents=True, exist_ok=True)
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    if target.exists():
        target.rename(old / target.name)
    staging.rename(target)
    shutil.rmtree(old, ignore_errors=True)
