"""A server whose output goes nowhere: it serves all the same."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.e2e.server_process import ServerProcess

DEMO = ("--chat-template", "chatml", "--slots", "-c", "512", "-np", "2")
HELLO = {"prompt": "Hello", "n_predict": 4}


@pytest.mark.parametrize(
    ("redirected", "log"),
    [
        ("1>&-", ["--log-json"]),
        ("2>&-", []),
        ("0<&- 1>&- 2>&-", []),
        (">/dev/full 2>&1", []),
        ("2>/dev/full", ["--log-json"]),
    ],
)
def test_closed_descriptors_and_full_disks(redirected: str, log: list[str], tiny_text: Path, tmp_path: Path) -> None:
    before = ("sh", "-c", f'exec "$@" {redirected}', "sh")
    with ServerProcess(tmp_path / "log", "-m", str(tiny_text), *DEMO, *log, before=before) as server:
        assert server.ok("/completion", HELLO)["tokens_predicted"] == 4
        assert server.health() == 200
        assert server.stop() == 0
    assert "Traceback" not in server.log


def test_a_log_pipe_that_nobody_reads(tiny_text: Path, tmp_path: Path) -> None:
    """Requests and health are answered while the pipe is full; once somebody reads, the log says what is missing."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    before = ("sh", "-c", f'exec "$@" >"{pipe}" 2>&1', "sh")
    with ServerProcess(tmp_path / "log", "-m", str(tiny_text), *DEMO, "-lv", "1", before=before) as server:
        for _ in range(90):  # 5 MB of log
            assert server.http.get("/" + "x" * 60000).status_code == 404
        for _ in range(20):
            assert server.health() == 200
        assert server.ok("/completion", HELLO)["tokens_predicted"] == 4
        read: list[bytes] = []
        os.set_blocking(reading, True)
        told = threading.Event()

        def drain() -> None:
            while data := os.read(reading, 1 << 20):
                read.append(data)
                if b"were dropped" in b"".join(read[-2:]):
                    told.set()

        thread = threading.Thread(target=drain)
        thread.start()
        while not told.wait(0.1):
            assert server.health() == 200
        assert server.stop() == 0
        thread.join(20)
    os.close(reading)
    log = b"".join(read).decode()
    assert "listening on" in log
    assert "lines of the log were dropped" in log


def test_a_server_told_to_stop_does_not_wait_for_its_log(tiny_text: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    before = ("sh", "-c", f'exec "$@" >"{pipe}" 2>&1', "sh")
    with ServerProcess(tmp_path / "log", "-m", str(tiny_text), *DEMO, before=before) as server:
        for _ in range(4):
            server.http.get("/" + "x" * 60000)
        assert server.stop() == 0
    os.close(reading)
