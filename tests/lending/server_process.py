"""An RPC server as its user runs it: a process of its own, reached over real sockets."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.server_process import children
from tests.lending.protocol import Client
from tests.suite.ports import free_port

WITHIN = 60.0
"""Seconds; far more than anything here takes, so that only a hang fails."""


class RpcServer:
    """`python -m llamabox --rpc-server-port …` with its log in a file."""

    def __init__(self, log: Path, *words: str, wait: bool = True, env: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self.log_path = log
        command = [sys.executable, "-m", "llamabox", "--rpc-server-port", str(self.port), "-lv", "1", *words]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}, start_new_session=True
            )
        if wait:
            self.wait_log("lending ")

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_log(self, text: str, times: int = 1) -> None:
        """Until the log has it so often."""
        deadline = time.monotonic() + WITHIN
        while self.log.count(text) < times:
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log}"
            assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{self.log}"
            time.sleep(0.02)

    def wait_idle(self) -> None:
        """Until nobody is served and one process waits for the next client."""
        deadline = time.monotonic() + WITHIN
        while len(children(self.process.pid)) != 1 or self.n_came() != self.n_gone():
            assert time.monotonic() < deadline, f"{children(self.process.pid)} are there:\n{self.log}"
            time.sleep(0.02)

    def newest_child(self) -> int:
        """The process of the client that came last."""
        newest = next(line for line in reversed(self.log.splitlines()) if " came: process " in line)
        return int(newest.split("process ")[1])

    def n_came(self) -> int:
        return self.log.count(" came: process ")

    def n_gone(self) -> int:
        return self.log.count(" received, ")

    def settled_memory(self) -> int:
        """Bytes that the server and its processes hold when nobody is served and the spare process has loaded all."""
        self.wait_idle()
        last, same = -1, 0
        while same < 5:
            pids = [self.process.pid, *children(self.process.pid)]
            now = sum(map(_memory, pids))
            last, same = now, same + 1 if now == last and len(pids) == 2 else 0
            time.sleep(0.05)
        return last

    def client(self, *, greet: bool = True, source: str | None = None) -> Client:
        return Client(self.port, greet=greet, source=source)

    def stop(self, with_signal: int = signal.SIGTERM, seconds: float = 10.0) -> int:
        """Signal it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"did not stop within {seconds} s:\n{self.log}") from None


def _memory(pid: int) -> int:
    """What is its own; the libraries' files are everybody's."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
    return 0
