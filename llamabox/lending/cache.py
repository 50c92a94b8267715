"""The folder of tensors that clients sent once and need not send again, and its size.

ggml's server writes a tensor to a file named by its hash, in place, and believes every file that it finds. A process
that dies while it writes, or a full disk, would leave part of a tensor that later clients compute with. So each client
has a folder of its own, with links to what is kept; what is new there is kept once it proves to be what its name says.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from llamabox.artifacts import caches
from llamabox.errors import OptionsError

NAME = re.compile(r"[0-9a-f]{16}")
PREFIX = ".client-"


class TensorCache:
    """The files in `folder` and the clients' folders below it. Several processes may act on one at the same time."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self._size = size  # bytes

    def prepare(self) -> None:
        """Makes the folder, removes what an earlier server left, and prunes. Raises OptionsError."""
        if problem := caches.why_not(self.folder):
            raise OptionsError(f"--rpc-server-cache {self.folder}: {problem}, and what lies there is computed with")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=PREFIX) as file:
                os.link(file.name, file.name + "-link")  # not every file system can
                os.unlink(file.name + "-link")
            for left in self.folder.glob(f"{PREFIX}*"):
                shutil.rmtree(left, ignore_errors=True)
        except OSError as error:
            raise OptionsError(f"--rpc-server-cache {self.folder}: {error.strerror}") from error
        self.prune()

    def open(self) -> ClientFolder:
        """The folder of this process' client, with all kept tensors in it. Raises OSError."""
        folder = self._folder_of(os.getpid())
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in self._files():
            with contextlib.suppress(OSError):  # pruned by another meanwhile
                stat = path.stat()
                # Most systems note a read only where the last one is not newer than the last write.
                used = max(stat.st_atime_ns, stat.st_mtime_ns)
                os.utime(path, ns=(used, used))
                os.link(path, folder / path.name)
        return ClientFolder(self, folder)

    def prune(self) -> int:
        """Remove the files unused for longest until the rest fits. Returns the number of files removed."""
        found = []
        for path in self._files():
            with contextlib.suppress(OSError):
                stat = path.stat()
                found.append((max(stat.st_atime_ns, stat.st_mtime_ns), stat.st_size, path))
        excess = sum(size for _, size, _ in found) - self._size
        n_removed = 0
        for _, size, path in sorted(found):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size
            n_removed += 1
        return n_removed

    def clear_after(self, pid: int) -> None:
        """Remove the folder that a lender which has ended left behind."""
        shutil.rmtree(self._folder_of(pid), ignore_errors=True)

    def _folder_of(self, pid: int) -> Path:
        return self.folder / f"{PREFIX}{pid}"

    def _files(self) -> list[Path]:
        with contextlib.suppress(OSError):
            return [path for path in self.folder.iterdir() if NAME.fullmatch(path.name)]
        return []


class ClientFolder:
    """The folder that one client's ggml reads and writes."""

    def __init__(self, cache: TensorCache, path: Path) -> None:
        self.path = path
        self._cache = cache
        self._known = {entry.name for entry in path.iterdir()}
        self._looked_at: dict[str, tuple[int, int]] = {}  # size and time of what was not whole

    def keep(self, file_hash: Callable[[str], str]) -> int:
        """Keep the new files whose hash is their name. Returns their number.

        One that ggml still writes has not, and gets another look when it has changed.
        """
        n_kept = 0
        for entry in os.scandir(self.path):
            if entry.name in self._known:
                continue
            with contextlib.suppress(OSError):
                stat = entry.stat()
                if self._looked_at.get(entry.name) == (stat.st_size, stat.st_mtime_ns):
                    continue
                self._looked_at[entry.name] = (stat.st_size, stat.st_mtime_ns)
                if file_hash(entry.path) == entry.name:
                    self._known.add(entry.name)
                    os.link(entry.path, self._cache.folder / entry.name)
                    n_kept += 1
        if n_kept:
            self._cache.prune()
        return n_kept

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
