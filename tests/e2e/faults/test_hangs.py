"""A worker that hangs is found within the limit and replaced; one that is only slow is left to do its work."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import DEMO
from tests.e2e.faults.test_worker_death import Stream
from tests.e2e.server_process import ServerProcess, children
from tests.e2e.survival import CANARY, wait_for

LIMIT = 1.5
SLACK = 10.0
"""Seconds that a busy machine may take to tell of it."""

SLOW_READ = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

// A disk that takes its time for each read of a worker's: only they read that much at once.
size_t fread(void * target, size_t size, size_t n, FILE * file) {
    static size_t (*real)(void *, size_t, size_t, FILE *);
    if (real == NULL) {
        real = (size_t (*)(void *, size_t, size_t, FILE *)) dlsym(RTLD_NEXT, "fread");
    }
    if (size * n > 100000) {
        usleep(25000);
    }
    return real(target, size, n, file);
}
"""


@pytest.fixture
def server(serve: Callable[..., ServerProcess]) -> ServerProcess:
    running = serve("-c", "4096", "-np", "4", "--hang-timeout", str(LIMIT))
    running.wait_ready()
    return running


def found(server: ServerProcess, since: float) -> None:
    """/health tells in time; afterwards the next worker answers rightly."""
    while server.health() == 200:
        assert time.monotonic() - since < LIMIT + SLACK, "/health still says 200"
        time.sleep(0.02)
    assert server.http.get("/health").status_code == 503
    server.wait_ready()
    assert "Paris" in server.ok("/v1/chat/completions", CANARY)["choices"][0]["message"]["content"]
    assert "the text worker gave no sign of life" in server.log


def test_stopped_while_streams_run_and_while_idle(server: ServerProcess) -> None:
    streams = [Stream(server.url, f"a stop {i}") for i in range(3)]
    for stream in streams:
        stream.start()
    for stream in streams:
        assert stream.begun.wait(60)
    os.kill(server.worker_pid(), signal.SIGSTOP)
    found(server, time.monotonic())
    for stream in streams:
        stream.join(60)
        assert stream.status == 200
        assert stream.last["error"]["code"] == 503  # type: ignore[index]
    os.kill(server.worker_pid(), signal.SIGSTOP)
    found(server, time.monotonic())


def test_the_server_itself_may_be_stopped_for_longer(server: ServerProcess) -> None:
    """As a laptop is when it sleeps, with all its processes; then with the server alone, whose worker has gone on."""
    worker = server.worker_pid()
    for pids in ((server.process.pid, worker), (server.process.pid,)):
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(1.5 * LIMIT)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert "Paris" in server.ok("/v1/chat/completions", CANARY)["choices"][0]["message"]["content"]
        time.sleep(LIMIT / 2)
        assert server.worker_pid() == worker
        assert server.health() == 200


@pytest.mark.slow
def test_a_long_prompt_on_one_thread(model: Path, tmp_path: Path) -> None:
    """Its only step takes longer than the limit, and gets on."""
    limit = 1.0
    arguments = (*DEMO, "-m", str(model), "-c", "8192", "-t", "1", "-b", "8192", "--hang-timeout", str(limit))
    with ServerProcess(tmp_path / "log", *arguments) as server:
        worker = server.worker_pid()
        for n_tokens in (1_000, 2_000, 4_000, 8_000):  # the quicker the machine, the longer the prompt
            body = {"prompt": [504] * n_tokens, "n_predict": 1, "cache_prompt": False}
            answer = httpx.post(f"{server.url}/completion", json=body, timeout=None)
            assert answer.status_code == 200, server.log
            assert server.worker_pid() == worker
            if answer.json()["timings"]["prompt_ms"] > 2 * limit * 1000:
                return
        raise AssertionError("no prompt took longer than the limit")


def test_a_load_from_a_slow_disk(model: Path, tmp_path: Path) -> None:
    shim = tmp_path / "slow.so"
    source = tmp_path / "slow.c"
    source.write_text(SLOW_READ)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(shim), str(source), "-ldl"], check=True)
    begun = time.monotonic()
    arguments = (*DEMO, "-m", str(model), "-c", "512", "--no-mmap", "--hang-timeout", "1")
    with ServerProcess(tmp_path / "log", *arguments, env={"LD_PRELOAD": str(shim)}) as server:
        assert time.monotonic() - begun > 3.0, "the disk was not slow"
        assert "sign of life" not in server.log
        server.ok("/completion", {"prompt": "Hi", "n_predict": 2})


def test_nothing_is_left_of_a_worker_that_was_killed_for_hanging(server: ServerProcess) -> None:
    before = len(children(server.process.pid))
    os.kill(server.worker_pid(), signal.SIGSTOP)
    found(server, time.monotonic())
    wait_for(lambda: len(children(server.process.pid)) <= before, "its processes are gone")
