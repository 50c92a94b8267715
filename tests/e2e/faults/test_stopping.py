"""SIGTERM and SIGINT, whenever they come and whomever they reach: exit code 0, in time, and no process left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.server_process import PATIENCE, ServerProcess, children
from tests.e2e.survival import wait_for

COUNTING = {"prompt": "Count: 1 2 3", "ignore_eos": True}


def assert_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    for pid in pids:
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline, f"process {pid} is left behind"
            time.sleep(0.02)


def wait_for_children(server: ServerProcess) -> list[int]:
    while not (found := children(server.process.pid)):
        time.sleep(0.001)
    return found


def wait_until_stopping(server: ServerProcess) -> None:
    while "stopping" not in server.log:
        assert server.process.poll() is None, server.log
        time.sleep(0.01)


@contextlib.contextmanager
def prefilling(server: ServerProcess) -> Iterator[None]:
    """With a prompt in evaluation that takes a while."""

    def ask() -> None:
        with contextlib.suppress(httpx.TransportError):  # the server may go before it has answered
            server.post("/completion", {"prompt": "word " * 500, "n_predict": 1})

    thread = threading.Thread(target=ask)
    thread.start()
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
        while not http.get("/slots").json()[0]["is_processing"]:
            time.sleep(0.01)
    yield
    thread.join(60)


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["loading", "idle", "prefill"])
def test_ends_with_0_and_leaves_nothing(tmp_path: Path, model: Path, moment: str, with_signal: signal.Signals) -> None:
    with ServerProcess(tmp_path / "log", "-m", str(model), "--slots", wait=moment != "loading") as server:
        processes = wait_for_children(server)
        with prefilling(server) if moment == "prefill" else contextlib.nullcontext():
            assert server.stop(with_signal) == 0
        assert_gone(processes)


WORKERS = ["worker", "server, then worker", "worker, then server", "all"]
"""Who is sent SIGTERM, where the worker is, too."""


@pytest.mark.parametrize(("moment", "whom"), [*(("loading", whom) for whom in WORKERS), ("idle", "worker")])
def test_a_signal_to_the_worker_is_meant_for_the_server(
    tmp_path: Path, tiny_text: Path, moment: str, whom: str
) -> None:
    with ServerProcess(tmp_path / "log", "-m", str(tiny_text), wait=moment != "loading") as server:
        processes = wait_for_children(server)
        terminate(server, whom)
        assert server.process.wait(20) == 0
        assert_gone(processes)


@pytest.mark.parametrize("whom", ["server", *WORKERS])
def test_a_running_stream_may_end_before_the_server_does(tmp_path: Path, model: Path, whom: str) -> None:
    with ServerProcess(tmp_path / "log", "-m", str(model)) as server:
        # Few tokens: a machine that is busy elsewhere has to make them within the grace.
        stream = server.stream("/completion", {**COUNTING, "n_predict": 24})
        next(stream)
        processes = children(server.process.pid)
        terminate(server, whom)
        events = list(stream)
        assert events[-1]["stop"] is True
        assert events[-1]["tokens_predicted"] == 24
        assert server.process.wait(20) == 0
        assert_gone(processes)


def terminate(server: ServerProcess, whom: str) -> None:
    """SIGTERM as people and systemd send it."""
    pids = {"server": [server.process.pid], "worker": children(server.process.pid)[:1]}
    pids["all"] = [server.process.pid, *children(server.process.pid)]
    for who in whom.split(", then "):
        for pid in pids[who]:
            os.kill(pid, signal.SIGTERM)


def test_a_second_signal_ends_it_at_once(tmp_path: Path, model: Path) -> None:
    with ServerProcess(tmp_path / "log", "-m", str(model)) as server:
        processes = children(server.process.pid)
        stream = server.stream("/completion", {**COUNTING, "n_predict": 2000})
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        wait_until_stopping(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 1
        assert_gone(processes)


def test_the_worker_s_signal_is_not_the_first_of_the_server_s_two(tmp_path: Path, model: Path) -> None:
    with ServerProcess(tmp_path / "log", "-m", str(model)) as server:
        # Few tokens: a machine that is busy elsewhere has to make them within the grace.
        stream = server.stream("/completion", {**COUNTING, "n_predict": 24})
        next(stream)
        for _ in range(3):
            os.kill(server.worker_pid(), signal.SIGTERM)
        wait_until_stopping(server)
        server.process.send_signal(signal.SIGTERM)
        assert list(stream)[-1]["tokens_predicted"] == 24
        assert server.process.wait(20) == 0


def test_a_killed_server_takes_its_workers_along(tmp_path: Path, tiny_text: Path) -> None:
    with ServerProcess(tmp_path / "log", "-m", str(tiny_text)) as server:
        processes = children(server.process.pid)
        server.process.kill()
        server.process.wait()
        assert_gone(processes)


AS_PID_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
if os.geteuid() != 0:
    AS_PID_1 += ("--user", "--map-root-user")


def test_works_as_pid_1(tmp_path: Path, tiny_text: Path) -> None:
    """In a PID namespace of its own, as in a container: signals reach it and nothing is left."""
    with ServerProcess(tmp_path / "log", "-m", str(tiny_text), before=AS_PID_1) as outer:
        [inner] = children(outer.process.pid)
        [program] = children(inner)
        processes = [program, *children(program)]
        assert len(processes) > 1
        os.kill(inner, signal.SIGTERM)
        assert outer.process.wait(20) == 0
        assert_gone(processes)


def test_as_pid_1_it_leaves_no_zombies(tmp_path: Path, tiny_text: Path) -> None:
    """A worker that dies leaves the process behind in which it tried out a grammar."""
    with ServerProcess(tmp_path / "log", "-m", str(tiny_text), before=AS_PID_1) as outer:
        [inner] = children(outer.process.pid)
        [program] = children(inner)
        outer.ok("/completion", {"prompt": "x", "n_predict": 2, "grammar": 'root ::= "a" | "b"'})
        [worker] = [pid for pid in children(program) if b"workers.text" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        orphans = children(worker)
        assert orphans
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: outer.health() == 503, "its death is seen")
        outer.wait_ready()
        for pid in (worker, *orphans):
            wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists(), "nothing is left of it, not even a zombie")  # type: ignore[misc]
        os.kill(inner, signal.SIGINT)
        assert outer.process.wait(20) == 0
