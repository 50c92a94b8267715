"""SIGTERM and SIGINT, whenever they come: exit code 0, in time, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from e2e.server_process import ServerProcess, children, free_port


def assert_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 5
    for pid in pids:
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline, f"process {pid} is left behind"
            time.sleep(0.02)


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["loading", "idle", "prefill"])
def test_ends_with_0_and_leaves_nothing(tmp_path: Path, model: Path, moment: str, with_signal: signal.Signals) -> None:
    server = ServerProcess(tmp_path / "log", "-m", str(model), "--slots", wait=moment != "loading")
    while not children(server.process.pid):
        time.sleep(0.01)
    workers = children(server.process.pid)
    if moment == "prefill":
        body = {"prompt": "word " * 3000, "n_predict": 1}

        def ask() -> None:
            try:
                server.post("/completion", body)
            except httpx.TransportError:
                pass  # the server may go before it has answered

        thread = threading.Thread(target=ask)
        thread.start()
        with httpx.Client(base_url=server.url) as http:
            while not http.get("/slots").json()[0]["is_processing"]:
                time.sleep(0.01)
    assert server.stop(with_signal) == 0
    if moment == "prefill":
        thread.join(10)
    assert_gone(workers)


def test_a_running_stream_may_end_before_the_server_does(tmp_path: Path, model: Path) -> None:
    server = ServerProcess(tmp_path / "log", "-m", str(model))
    stream = server.stream("/completion", {"prompt": "Count: 1 2 3", "n_predict": 100, "ignore_eos": True})
    next(stream)
    server.process.send_signal(signal.SIGTERM)
    events = list(stream)
    assert events[-1]["stop"] is True
    assert events[-1]["tokens_predicted"] == 100
    assert server.process.wait(20) == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path, model: Path) -> None:
    server = ServerProcess(tmp_path / "log", "-m", str(model))
    workers = children(server.process.pid)
    stream = server.stream("/completion", {"prompt": "Count: 1 2 3", "n_predict": 2000, "ignore_eos": True})
    next(stream)
    server.process.send_signal(signal.SIGTERM)
    while "stopping" not in server.log.lower():
        time.sleep(0.01)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(5) == 1
    assert_gone(workers)


def test_a_killed_server_takes_its_workers_along(tmp_path: Path, model: Path) -> None:
    server = ServerProcess(tmp_path / "log", "-m", str(model))
    workers = children(server.process.pid)
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    assert_gone(workers)


def test_works_as_pid_1(tmp_path: Path, model: Path) -> None:
    """In a PID namespace of its own, as in a container: signals reach it and nothing is left."""
    port = free_port()
    with (tmp_path / "log").open("wb") as out:
        outer = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-m", "llamabox", "-m", str(model), "--port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + 60
    while True:
        assert outer.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                break
        except httpx.TransportError:
            time.sleep(0.05)
    [inner] = children(outer.pid)
    os.kill(inner, signal.SIGTERM)
    assert outer.wait(20) == 0
