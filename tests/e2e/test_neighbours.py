"""A stream that runs beside the dearest lawful request of a kind: the time between its tokens stays what it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from e2e.server_process import ServerProcess
from e2e.test_infill import MARKERS

Serve = Callable[..., ServerProcess]

N_QUIET = 60
"""Tokens of the stream before the request comes."""

SLOW = 5.0
"""Seconds that a busy machine may take from any process. Stop strings and breakers took 44 and 26 from everybody."""

STOPS = ["ab" * 31 + chr(0x4E00 + i) for i in range(256)]
"""Each goes on, almost to its end, as the text does."""

BREAKERS = [chr(0x61 + i // 8) + "xyz the quick brown fox"[: i % 8] for i in range(64)]
MEGABYTES = "def add(a, b):\n    return a + b\n" * 60_000

DEAREST: dict[str, tuple[str, dict[str, Any]]] = {
    "stop strings beside a forced text": (
        "/completion",
        {"prompt": "x", "stop": STOPS, "json_schema": {"const": "ab" * 500}, "n_predict": 2000, "n": 3},
    ),
    "sequence breakers": (
        "/completion",
        {"prompt": "x", "dry_multiplier": 0.8, "dry_sequence_breakers": BREAKERS, "n": 3, "n_predict": 2},
    ),
    "biases": (
        "/completion",
        {"prompt": ["x"] * 64, "logit_bias": [[i, -1.5] for i in range(4096)], "n_predict": 1},
    ),
    "histories": (
        "/completion",
        {"prompt": [list(range(100, 2000))] * 2, "repeat_last_n": -1, "repeat_penalty": 1.1, "n_predict": 1, "n": 3},
    ),
    "texts of infill": ("/infill", {"input_prefix": MEGABYTES, "input_suffix": MEGABYTES, "n_predict": 1}),
}


class Watched:
    """A stream, and when its tokens came."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._times: list[float] = []
        self._news = threading.Condition()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._over.set()
        self._thread.join()

    def longest(self, since: int = 0) -> float:
        """Seconds between two tokens, from the `since`-th on."""
        times = self._times[max(0, since - 1) :]
        return max(after - before for before, after in pairwise(times))

    def wait(self, n_more: int) -> int:
        """Until so many more tokens have come. Returns how many there are by then."""
        with self._news:
            n = len(self._times) + n_more
            assert self._news.wait_for(lambda: len(self._times) >= n, timeout=120), "the stream stands still"
            return len(self._times)

    def _run(self) -> None:
        for _ in self._events():
            with self._news:
                self._times.append(time.perf_counter())
                self._news.notify_all()
            if self._over.is_set():
                return

    def _events(self) -> Iterator[dict[str, Any]]:
        asked = {"prompt": "Once upon a time", "n_predict": -1, "ignore_eos": True, "temperature": 0, "id_slot": 0}
        return self._server.stream("/completion", asked)


@pytest.fixture(scope="module")
def server(serve: Serve) -> ServerProcess:
    return serve("-np", "4", "-c", "16384", "--infill", *MARKERS)


@pytest.mark.parametrize("kind", DEAREST)
def test_nobody_waits_for_the_dearest_request(server: ServerProcess, kind: str) -> None:
    path, body = DEAREST[kind]
    with Watched(server) as stream, ThreadPoolExecutor(1) as pool:
        n = stream.wait(N_QUIET)
        quiet = stream.longest(since=5)
        asked = pool.submit(server.post, path, body)
        assert asked.result().status_code == 200, asked.result().text
        stream.wait(1)
        during = stream.longest(since=n)
    print(f"{kind}: {1e3 * quiet:.0f} ms quiet, {1e3 * during:.0f} ms during")
    assert during <= max(2 * quiet, SLOW)
    server.wait_idle(60)
