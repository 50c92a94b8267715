"""A server under measurement: whatever its command line starts, until it is stopped."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.record.subjects import Subject
from tests.e2e.server_process import children
from tests.suite.ports import free_port

PATIENCE = 300.0
POLL = 0.01


@dataclass(frozen=True, slots=True)
class Command:
    """A command line with {model}, {port}, {slots}, {cells} and {threads} in it."""

    words: str
    n_threads: int

    def start(self, subject: Subject, n_slots: int, n_cells: int, folder: Path) -> Server:
        """Start it for `n_slots` texts of `n_cells` tokens each, and wait until it is ready. Its log is in `folder`."""
        port = free_port()
        filled = self.words.format(
            model=shlex.quote(str(subject.path)),
            port=port,
            slots=n_slots,
            cells=n_slots * n_cells,
            threads=self.n_threads,
        )
        words = [*shlex.split(filled), *(["--embeddings"] if subject.is_encoder else [])]
        return Server(words, port, subject.path.resolve(), folder / f"{port}.log")


class Server:
    """A running server, in this session: Linux shares processors among sessions first. `stop()` must follow."""

    def __init__(self, words: list[str], port: int, model: Path, log: Path) -> None:
        """Wait until /health says 200. Raises RuntimeError, with the log's end, where it does not."""
        self.port = port
        self._model = model
        start = time.perf_counter()
        with log.open("wb") as out:
            self._process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, process_group=0)
        try:
            while not self._is_ready():
                if self._process.poll() is not None or time.perf_counter() - start > PATIENCE:
                    raise RuntimeError(f"{words[0]} is not ready:\n{log.read_text(errors='replace')[-2000:]}")
                time.sleep(POLL)
        except BaseException:
            self.stop()
            raise
        self.ready_s = time.perf_counter() - start

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @property
    def memory(self) -> int:
        """Bytes of all its processes together, shared ones once (PSS). The model's file, which the other server has in
        its memory too, counts whole."""
        return sum(
            n_bytes
            for pid in _tree(self._process.pid)
            for path, pss, rss in _mappings(pid)
            for n_bytes in (rss if path == str(self._model) else pss,)
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Idempotent."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _tree(pid: int) -> list[int]:
    try:
        return [pid, *(one for child in children(pid) for one in _tree(child))]
    except OSError:
        return []  # it has ended


def _mappings(pid: int) -> Iterator[tuple[str, int, int]]:
    """Path, proportional and resident bytes of each mapping of a process."""
    try:
        text = Path(f"/proc/{pid}/smaps").read_text()
    except OSError:
        return
    path, rss = "", 0
    for line in text.splitlines():
        if match := re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)", line):
            path = match[1]
        elif line.startswith("Rss:"):
            rss = int(line.split()[1]) << 10
        elif line.startswith("Pss:"):
            yield path, int(line.split()[1]) << 10, rss
