"""--tokens-per-second in a real server: a limited stream keeps its rate and holds nobody up."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.e2e.server_process import ServerProcess
from tests.e2e.survival import processor_seconds

pytestmark = pytest.mark.model

Serve = Callable[..., ServerProcess]

BODY = {"prompt": "Count:", "n_predict": -1, "ignore_eos": True, "stream": True, "temperature": 0}


class Stream(threading.Thread):
    """Reads a stream until `stop`; `times` are those at which tokens came, one entry a token."""

    def __init__(self, server: ServerProcess, headers: dict[str, str]) -> None:
        super().__init__()
        self.times: list[float] = []
        self.begun = threading.Event()
        self.status = 0
        self._server = server
        self._headers = headers
        self._stopping = threading.Event()

    def run(self) -> None:
        with (
            httpx.Client(base_url=self._server.url, timeout=60) as http,
            http.stream("POST", "/completion", json=BODY, headers=self._headers) as response,
        ):
            self.status = response.status_code
            for line in response.iter_lines():
                if line.startswith("data: "):
                    self.times += [time.perf_counter()] * len(json.loads(line[6:])["tokens"])
                    self.begun.set()
                if self._stopping.is_set():
                    return

    def stop(self) -> None:
        self._stopping.set()
        self.join(30)
        assert not self.is_alive()


def test_a_limited_stream_keeps_its_rate_beside_one_at_full_speed(serve: Serve) -> None:
    server = serve("-np", "2", "-c", "4096", "-tps", "20", "--metrics")
    limited = Stream(server, {"X-Request-Tokens-Per-Second": "10"})
    free = Stream(server, {})
    for stream in (limited, free):
        stream.start()
        assert stream.begun.wait(30)
    free_from, decodes_from = len(free.times), n_decodes(server)
    start = len(limited.times)
    while len(limited.times) < start + 30:
        time.sleep(0.01)
        assert limited.is_alive()
    n_free, n_steps = len(free.times) - free_from, n_decodes(server) - decodes_from
    stop = len(limited.times) - 1
    limited.stop()
    free.stop()
    times = limited.times[start : stop + 1]
    assert (stop - start) / (times[-1] - times[0]) <= 11.0
    # The middle one of the gaps: a machine that is busy with other things as well may stand still for a while.
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    assert 0.09 <= gaps[len(gaps) // 2] <= 0.11
    assert n_free > 0.9 * n_steps, "the free one sat steps out"
    server.wait_idle()
    assert "KV ledger" not in server.log


def test_above_the_cap_is_gone(serve: Serve) -> None:
    server = serve("-np", "2", "-c", "4096", "-tps", "20")
    for stream in (False, True):
        reply = server.http.post(
            "/completion", json={**BODY, "stream": stream}, headers={"X-Request-Tokens-Per-Second": "21"}
        )
        assert (reply.status_code, reply.text) == (410, "This request exceeds the maximum tokens per second")


def test_resting_takes_no_time_of_the_processor_and_others_are_served_meanwhile(serve: Serve) -> None:
    server = serve("-np", "2", "-c", "4096", "-tps", "20")
    limited = Stream(server, {"X-Request-Tokens-Per-Second": "1"})
    limited.start()
    assert limited.begun.wait(30)
    assert server.busy_slots() == 1
    before, begun = processor_seconds(server.worker_pid()), time.perf_counter()
    while len(limited.times) < 3:
        time.sleep(0.01)
    share = (processor_seconds(server.worker_pid()) - before) / (time.perf_counter() - begun)
    assert share < 0.5, "the worker spins"
    reply: dict[str, Any] = server.ok("/completion", {"prompt": "One, two,", "n_predict": 4, "temperature": 0})
    assert reply["timings"]["predicted_n"] == 4
    limited.stop()
    server.wait_idle()


def test_the_cap_is_measured(serve: Serve) -> None:
    server = serve("-np", "2", "-c", "2048", "-tps", "-1", "-ub", "32")  # of so many tokens
    found = [line for line in server.log.splitlines() if "tokens per second" in line]
    assert len(found) == 1, server.log
    cap = int(found[0].split(" tokens per second")[0].rsplit(" ", 1)[1])
    assert cap > 1
    assert server.http.get("/slots").json()[0]["is_processing"] is False
    for rate, status in ((cap, 200), (cap + 1, 410)):
        headers = {"X-Request-Tokens-Per-Second": str(rate)}
        reply = server.http.post("/completion", json={"prompt": "a", "n_predict": 2}, headers=headers)
        assert reply.status_code == status


def n_decodes(server: ServerProcess) -> float:
    found = [
        line for line in server.http.get("/metrics").text.splitlines() if line.startswith("llamacpp:n_decode_total ")
    ]
    return float(found[0].split()[1])
