"""A llamabox server as a user runs it: a process of its own, reached over a real socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.suite.ports import free_port

PATIENCE = 120.0
"""Seconds; far more than a load or an answer takes on a busy machine, so that only a hang fails."""


ONE_THREAD = ("-t", "1")
"""Two that share their cores with server, client and other tests spin for each other most of the time."""


class ServerProcess:
    """`python -m llamabox …` with its log in a file. Ends with the `with` block.

    One thread computes unless the words say otherwise. `before` are words to put before the command. Signals go to the
    process that they start.

    It is in the test's session: Linux shares processors among sessions first (sched_autogroup), and one whose processes
    mostly sleep is at times not let run for a second beside one that is busy. A test would measure that.
    """

    def __init__(
        self,
        log: Path,
        *arguments: str,
        env: dict[str, str] | None = None,
        wait: bool = True,
        before: tuple[str, ...] = (),
    ) -> None:
        self.port = free_port()
        self.log_path = log
        self.url = f"http://127.0.0.1:{self.port}"
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "llamabox", "--port", str(self.port), *ONE_THREAD, *arguments],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                process_group=0,
            )
        # Where the server soon ends connections that are idle, one that is used again may end in that very moment.
        kept = 0 if "--conn-keepalive" in arguments else None
        limits = httpx.Limits(max_keepalive_connections=kept)
        # Unverified: plain HTTP needs none of the certificates that would be read first.
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE, limits=limits, verify=False)
        if wait:
            self.wait_ready()

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.health() != 200:
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log}"
            assert time.monotonic() < deadline, f"not ready:\n{self.log}"
            time.sleep(0.05)

    def health(self) -> int:
        """Status of /health; 0 while nobody listens."""
        try:
            return self.http.get("/health").status_code
        except httpx.TransportError:
            return 0

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.http.post(path, json=body)

    def ok(self, path: str, body: Any) -> Any:
        """The JSON of an answer that must be a 200."""
        response = self.post(path, body)
        assert response.status_code == 200, response.text
        return response.json()

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The JSON of each SSE event, [DONE] left out."""
        with self.http.stream("POST", path, json={**body, "stream": True}) as response:
            if response.status_code != 200:
                response.read()
                raise AssertionError(f"{response.status_code}: {response.text}")
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield json.loads(line[6:])

    def worker_pid(self, kind: str = "text") -> int:
        """The worker of this kind: the child that was started with its module's name."""
        for pid in children(self.process.pid):
            with contextlib.suppress(OSError):
                if f"llamabox.workers.{kind}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        raise AssertionError(f"no {kind} worker")

    def busy_slots(self) -> int:
        slots = self.http.get("/slots").json()
        return sum(slot["is_processing"] for slot in slots)

    def wait_idle(self, seconds: float = 10.0) -> None:
        """Until no slot is busy; needs --slots."""
        deadline = time.monotonic() + seconds
        while self.busy_slots():
            assert time.monotonic() < deadline, "slots stay busy"
            time.sleep(0.02)

    def stop(self, with_signal: int = signal.SIGTERM, seconds: float = 20.0) -> int:
        """Signal it and return its exit code."""
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"did not stop within {seconds} s:\n{self.log}") from None

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def children(pid: int) -> list[int]:
    """Process ids of the direct children of `pid`."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found
