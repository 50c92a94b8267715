"""The text worker dies under load: clean errors, an honest /health, and service again by itself."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.server_process import PATIENCE, ServerProcess

MAX_WRONG = 100
"""Answers of /health that a death may be behind: a tenth of a second of them, or more where each takes its time."""


@pytest.fixture
def server(serve: Callable[..., ServerProcess]) -> ServerProcess:
    return serve("-c", "4096", "-np", "4", "--no-warmup")


class Stream(threading.Thread):
    """Reads one endless stream; `begun` is set at its first token."""

    def __init__(self, url: str, topic: str) -> None:
        super().__init__()
        self.url = url
        self.body = {
            "messages": [{"role": "user", "content": f"A story about {topic}"}],
            "max_tokens": 900,
            "ignore_eos": True,
            "stream": True,
        }
        self.begun = threading.Event()
        self.status = 0
        self.last: dict[str, object] = {}

    def run(self) -> None:
        with httpx.stream("POST", f"{self.url}/v1/chat/completions", json=self.body, timeout=60) as response:
            self.status = response.status_code
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    self.last = json.loads(line[6:])
                    self.begun.set()


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_killed_while_four_streams_run(server: ServerProcess, with_signal: signal.Signals) -> None:
    server.wait_ready()
    server_pid = server.process.pid
    # Topics of their own: a request that was running at two deaths is refused at its third coming.
    streams = [Stream(server.url, f"{with_signal.name} {i}") for i in range(4)]
    for stream in streams:
        stream.start()
    for stream in streams:
        assert stream.begun.wait(60)
    os.kill(server.worker_pid(), with_signal)
    n_wrong = 0
    while server.health() == 200:
        n_wrong += 1
        assert n_wrong < MAX_WRONG, "/health still says 200"
    for stream in streams:
        stream.join(60)
        assert stream.status == 200
        assert stream.last["error"]["code"] == 503  # type: ignore[index]
    server.wait_ready()
    answer = server.ok(
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "max_tokens": 24,
            "temperature": 0,
        },
    )
    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert server.process.poll() is None
    assert server.process.pid == server_pid


def test_killed_while_idle_and_in_prefill(server: ServerProcess) -> None:
    server.wait_ready()
    os.kill(server.worker_pid(), signal.SIGKILL)
    while server.health() == 200:
        pass
    server.wait_ready()
    result: list[httpx.Response] = []
    body = {"prompt": "word " * 900, "n_predict": 4}
    thread = threading.Thread(target=lambda: result.append(server.post("/completion", body)))
    thread.start()
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
        while not any(slot["is_processing"] for slot in http.get("/slots").json()):
            time.sleep(0.01)
    os.kill(server.worker_pid(), signal.SIGKILL)
    thread.join(60)
    assert result[0].status_code == 503
    assert result[0].json()["error"]["type"] == "unavailable_error"
    server.wait_ready()
    assert server.ok("/completion", {"prompt": "Hello", "n_predict": 2})["tokens_predicted"] == 2


def test_the_server_process_maps_no_native_library(server: ServerProcess) -> None:
    server.wait_ready()
    assert "llama" not in "".join(
        line for line in Path(f"/proc/{server.process.pid}/maps").read_text().splitlines() if ".so" in line
    ).replace("llamabox", "")
    assert "libllama" in Path(f"/proc/{server.worker_pid()}/maps").read_text()
