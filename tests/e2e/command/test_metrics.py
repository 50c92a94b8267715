"""The counters of a real server are the sums over its replies' timings, and outlive the worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.server_process import ServerProcess


@pytest.fixture(scope="module")
def server(serve: Callable[..., ServerProcess]) -> ServerProcess:
    return serve("-c", "2048", "-np", "2", "--metrics", "--no-warmup")


def scrape(server: ServerProcess) -> dict[str, float]:
    reply = server.http.get("/metrics")
    assert reply.status_code == 200, reply.text
    families = text_string_to_metric_families(reply.text)
    return {s.name: s.value for family in families for s in family.samples if not s.labels}


def idle(server: ServerProcess) -> dict[str, float]:
    """A scrape once no slot is busy: a step is told after its answer may have been read."""
    deadline = time.monotonic() + 10
    while (values := scrape(server))["llamacpp:requests_processing"]:
        assert time.monotonic() < deadline, "slots stay busy"
        time.sleep(0.02)
    return values


def timings_of(body: dict[str, Any], server: ServerProcess) -> list[dict[str, float]]:
    answer = server.ok("/completion", body)
    return [one["timings"] for one in (answer if isinstance(answer, list) else [answer])]


def test_counters_are_the_sums_over_the_timings_and_outlive_the_worker(server: ServerProcess) -> None:
    bodies: list[dict[str, Any]] = [
        {"prompt": "The sky is", "n_predict": 12},
        {"prompt": "The sky is", "n_predict": 5},
        {"prompt": "word " * 300, "n_predict": 3, "n": 2},
        {"prompt": "Nothing", "n_predict": 0},
        {"prompt": ["One", "Two, three"], "n_predict": 4, "ignore_eos": True},
        {"prompt": "stop", "n_predict": 30, "stop": ["e"]},
    ]
    with ThreadPoolExecutor(3) as pool:
        timings = [one for many in pool.map(lambda body: timings_of(body, server), bodies) for one in many]
    values = idle(server)
    for name, key, scale in (
        ("prompt_tokens_total", "prompt_n", 1.0),
        ("prompt_tokens_cached_total", "cache_n", 1.0),
        ("prompt_seconds_total", "prompt_ms", 1e-3),
        ("tokens_predicted_total", "predicted_n", 1.0),
        ("tokens_predicted_seconds_total", "predicted_ms", 1e-3),
    ):
        assert values[f"llamacpp:{name}"] == pytest.approx(scale * sum(one[key] for one in timings)), name
    assert values["llamacpp:n_decode_total"] > 12
    assert 1 <= values["llamacpp:n_busy_slots_per_decode"] <= 2
    assert values["llamacpp:n_tokens_max_total"] >= 300
    assert values["llamacpp:kv_cache_tokens"] > 0
    assert values["llamacpp:kv_cache_usage_ratio"] == values["llamacpp:kv_cache_tokens"] / 2048
    assert values["llamabox:queue_seconds_count"] == len(timings)
    assert (
        values["llamabox:request_seconds_count"] == values["llamabox:time_to_first_token_seconds_count"] == len(bodies)
    )

    os.kill(server.worker_pid(), signal.SIGKILL)
    while server.health() == 200:
        pass
    after = scrape(server)
    assert after["llamacpp:tokens_predicted_total"] == values["llamacpp:tokens_predicted_total"]
    assert (after["llamacpp:kv_cache_tokens"], after["llamacpp:requests_processing"]) == (0, 0)
    server.wait_ready()
    timings += timings_of({"prompt": "Again", "n_predict": 6}, server)
    last = idle(server)
    assert last["llamacpp:tokens_predicted_total"] == sum(one["predicted_n"] for one in timings)
    assert last["llamabox:worker_restarts_total"] == 1


def test_a_client_that_leaves_leaves_no_slot_processing(server: ServerProcess) -> None:
    server.wait_ready()
    body = {"prompt": "On and on", "n_predict": 800, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{server.url}/completion", json=body) as response:
        next(response.iter_lines())
        assert scrape(server)["llamacpp:requests_processing"] == 1
    assert idle(server)["llamacpp:requests_processing"] == 0
