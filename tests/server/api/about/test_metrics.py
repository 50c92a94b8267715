"""GET /metrics: every name and type, the workers' counts, and what requests add to the histograms."""

from __future__ import annotations

import time

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from llamabox.clients.state import WorkerState
from llamabox.engine.drafting.drafter import Source
from llamabox.engine.events import Activity, DraftCounts, StepTimes
from llamabox.server.listening.config import ListenConfig
from llamabox.server.metrics.histogram import Histogram
from tests.server.fake_client import INFO, FakeTextClient, saying
from tests.server.harness import text_app

TYPES = {
    "llamacpp:prompt_tokens_total": "counter",
    "llamacpp:prompt_tokens_cached_total": "counter",
    "llamacpp:prompt_seconds_total": "counter",
    "llamacpp:tokens_predicted_total": "counter",
    "llamacpp:tokens_predicted_seconds_total": "counter",
    "llamacpp:tokens_drafted_total": "counter",
    "llamacpp:tokens_drafted_accepted_total": "counter",
    "llamacpp:spec_decode_num_drafts_total": "counter",
    "llamacpp:spec_decode_num_draft_tokens_total": "counter",
    "llamacpp:spec_decode_num_accepted_tokens_total": "counter",
    "llamacpp:spec_decode_num_accepted_tokens_per_pos_total": "counter",
    "llamabox:drafts_total": "counter",
    "llamabox:draft_tokens_total": "counter",
    "llamabox:draft_tokens_accepted_total": "counter",
    "llamabox:draft_tokens_accepted_at_total": "counter",
    "llamacpp:n_decode_total": "counter",
    "llamacpp:n_tokens_max": "counter",
    "llamacpp:n_busy_slots_per_decode": "gauge",
    "llamacpp:prompt_tokens_seconds": "gauge",
    "llamacpp:predicted_tokens_seconds": "gauge",
    "llamacpp:kv_cache_usage_ratio": "gauge",
    "llamacpp:kv_cache_tokens": "gauge",
    "llamacpp:requests_processing": "gauge",
    "llamacpp:requests_deferred": "gauge",
    "llamabox:prefix_hit_ratio": "gauge",
    "llamabox:media_encodings_total": "counter",
    "llamabox:media_encode_seconds_total": "counter",
    "llamabox:media_cache_hits_total": "counter",
    "llamabox:media_queued": "gauge",
    "llamabox:step_seconds": "histogram",
    "llamabox:worker_restarts_total": "counter",
    "llamabox:time_to_first_token_seconds": "histogram",
    "llamabox:inter_token_seconds": "histogram",
    "llamabox:queue_seconds": "histogram",
    "llamabox:request_seconds": "histogram",
}

LABELS = ("le", "source", "position")

DONE = Activity(
    n_decode=10, n_busy=25, n_cached=7, n_prompt=30, prompt_ms=150.0, n_predicted=20, predicted_ms=400.0,
    n_tokens_max=44, n_processing=2, n_waiting=3, n_resident=128,
    drafts=(
        DraftCounts(Source.HISTORY, n_drafts=3, n_drafted=9, n_accepted=5, accepted_at=(3, 2)),
        DraftCounts(Source.MODEL, n_drafts=2, n_drafted=2, n_accepted=1, accepted_at=(1,)),
    ),
)  # fmt: skip


def browser(client: FakeTextClient | None = None, *, enable: bool = True) -> TestClient:
    return TestClient(text_app(client or FakeTextClient(saying("a", "b")), ListenConfig(enable_metrics=enable)))


def scrape(http: TestClient) -> dict[str, float]:
    """Samples by name and labels; the parser gives each counter a _total."""
    reply = http.get("/metrics")
    assert reply.status_code == 200
    return {
        sample.name + "".join(sample.labels[name] for name in LABELS if name in sample.labels): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


def test_refused_without_its_option() -> None:
    with browser(enable=False) as http:
        reply = http.get("/metrics")
        assert (reply.status_code, reply.json()["error"]["type"]) == (501, "not_supported_error")
        assert "--metrics" in reply.json()["error"]["message"]
        assert http.get("/props").json()["endpoint_metrics"] is False
    with browser() as http:
        assert http.get("/props").json()["endpoint_metrics"] is True


def test_every_name_has_its_help_and_type() -> None:
    with browser() as http:
        reply = http.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4"
    assert 0 <= time.time() - int(reply.headers["process-start-time-unix"]) < 60
    lines = reply.text.splitlines()
    typed = dict(line.split()[2:4] for line in lines if line.startswith("# TYPE "))
    assert typed == TYPES
    assert {line.split()[2] for line in lines if line.startswith("# HELP ")} == set(TYPES)
    assert len(list(text_string_to_metric_families(reply.text))) == len(TYPES)


def test_the_workers_counts() -> None:
    client = FakeTextClient()
    client.activity, client.n_restarts = DONE, 4
    with browser(client) as http:
        values = scrape(http)
    expected = {
        "prompt_tokens_total": 30, "prompt_tokens_cached_total": 7, "prompt_seconds_total": 0.15,
        "tokens_predicted_total": 20, "tokens_predicted_seconds_total": 0.4, "tokens_drafted_total": 11,
        "tokens_drafted_accepted_total": 6, "spec_decode_num_drafts_total": 5,
        "spec_decode_num_draft_tokens_total": 11, "spec_decode_num_accepted_tokens_total": 6,
        "spec_decode_num_accepted_tokens_per_pos_total0": 4, "spec_decode_num_accepted_tokens_per_pos_total1": 2,
        "n_decode_total": 10, "n_busy_slots_per_decode": 2.5,
        "n_tokens_max_total": 44,
        "kv_cache_tokens": 128, "kv_cache_usage_ratio": 128 / INFO.n_ctx_total, "requests_processing": 2,
        "requests_deferred": 3, "prompt_tokens_seconds": 200, "predicted_tokens_seconds": 50,
    }  # fmt: skip
    assert {name: values[f"llamacpp:{name}"] for name in expected} == pytest.approx(expected)
    assert values["llamabox:worker_restarts_total"] == 4
    by_source = {
        "drafts_totalhistory": 3, "drafts_totalmodel": 2, "draft_tokens_totalhistory": 9,
        "draft_tokens_accepted_totalmodel": 1, "draft_tokens_accepted_at_totalhistory1": 2,
    }  # fmt: skip
    assert {name: values[f"llamabox:{name}"] for name in by_source} == by_source


def test_where_the_time_of_steps_goes() -> None:
    client = FakeTextClient()
    with browser(client) as http:
        for decode in (0.01, 0.02, 0.03):
            client.on_step(StepTimes(schedule=0.0001, decode=decode, sample=0.0002, update=0.0003, emit=0.0004))
        [steps] = [
            family
            for family in text_string_to_metric_families(http.get("/metrics").text)
            if family.name == "llamabox:step_seconds"
        ]
    sums = {sample.labels["stage"]: sample.value for sample in steps.samples if sample.name.endswith("_sum")}
    assert sums == pytest.approx(
        {"schedule": 0.0003, "decode": 0.06, "sample": 0.0006, "update": 0.0009, "emit": 0.0012, "host": 0.0018}
    )
    decodes = [sample for sample in steps.samples if sample.labels == {"stage": "decode", "le": "0.02"}]
    assert [sample.value for sample in decodes] == [2]


def test_what_prompts_found_in_the_cache() -> None:
    client = FakeTextClient()
    with browser(client) as http:
        assert scrape(http)["llamabox:prefix_hit_ratio"] == 0
        client.activity = DONE
        assert scrape(http)["llamabox:prefix_hit_ratio"] == pytest.approx(7 / 37)


def test_rates_are_those_since_the_last_scrape() -> None:
    client = FakeTextClient()
    with browser(client) as http:
        assert scrape(http)["llamacpp:predicted_tokens_seconds"] == 0
        client.activity = DONE
        assert scrape(http)["llamacpp:predicted_tokens_seconds"] == pytest.approx(50)
        idle = scrape(http)
        assert (idle["llamacpp:predicted_tokens_seconds"], idle["llamacpp:prompt_tokens_seconds"]) == (0, 0)
        client.activity = Activity(n_predicted=30, predicted_ms=500.0).after(DONE)
        assert scrape(http)["llamacpp:predicted_tokens_seconds"] == pytest.approx(60)


def test_answered_while_the_worker_restarts_but_not_before_the_first_load() -> None:
    client = FakeTextClient()
    with browser(client) as http:
        client.state = WorkerState.RESTARTING
        assert http.get("/props").status_code == 503
        assert http.get("/metrics").status_code == 200
        client.state, client.info = WorkerState.LOADING, None
        assert http.get("/metrics").status_code == 503
    assert client.asked == []


@pytest.mark.parametrize("stream", [False, True])
def test_histograms_count_requests_sequences_and_gaps(stream: bool) -> None:
    with browser(FakeTextClient(saying("a", "b", "c"))) as http:
        http.get("/props")
        for n in (1, 2):
            http.post("/v1/completions", json={"prompt": "x", "n": n, "stream": stream})
        values = scrape(http)
    assert values["llamabox:time_to_first_token_seconds_count"] == 2
    assert values["llamabox:request_seconds_count"] == 2
    assert values["llamabox:queue_seconds_count"] == 3
    assert values["llamabox:inter_token_seconds_count"] == 3 * 2
    assert values["llamabox:inter_token_seconds_sum"] == pytest.approx(3 * 2 * 0.01)
    assert values["llamabox:inter_token_seconds_bucket0.005"] == 0
    assert values["llamabox:inter_token_seconds_bucket+Inf"] == 6


def test_what_generated_nothing_is_in_no_histogram() -> None:
    with browser() as http:
        http.post("/tokenize", json={"content": "x"})
        http.post("/v1/completions", json={"prompt": 5.5})
        assert not [name for name, value in scrape(http).items() if name.endswith("_count") and value]


def test_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram("x", "y", (1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.5):
        histogram.observe(value)
    histogram.observe(2.0, 3)
    values = {s.name + s.labels.get("le", ""): s.value for s in histogram.family().samples}
    assert values == {"x_bucket1.0": 2, "x_bucket2.0": 6, "x_bucket+Inf": 7, "x_count": 7, "x_sum": 11.5}


def test_the_lives_of_workers_add_up() -> None:
    both = Activity(n_predicted=1, n_tokens_max=50, n_processing=1).after(DONE)
    assert (both.n_predicted, both.n_decode, both.n_tokens_max) == (21, 10, 50)
    assert (both.n_processing, both.n_waiting, both.n_resident) == (1, 0, 0)
