"""What every reply carries, and who is let in."""

from __future__ import annotations

import logging
import re

import pytest
from starlette.testclient import TestClient

import llamabox
from llamabox.log import entries as log
from llamabox.server.http.record import RequestRecord, line
from llamabox.server.listening.config import ListenConfig
from tests.server.fake_client import FakeTextClient, saying
from tests.server.harness import text_app


def browser(config: ListenConfig | None = None) -> TestClient:
    return TestClient(text_app(FakeTextClient(saying("a", n_cached=2)), config))


def test_a_key_is_asked_of_all_but_the_health() -> None:
    with browser(ListenConfig(api_keys=frozenset({"secret", "other"}))) as http:
        assert http.get("/health").status_code == http.get("/v1/health").status_code == 200
        for headers in (
            {}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}, {"Authorization": "secret"},
            {"X-Api-Key": "secre"}, {"X-Api-Key": ""}, {"X-Api-Key": "ø"}, {"Authorization": "Bearer "},
        ):  # fmt: skip
            for path in ("/v1/models", "/nothing"):
                reply = http.get(path, headers={name: value.encode("latin-1") for name, value in headers.items()})
                assert reply.status_code == 401
                assert reply.json()["error"]["type"] == "authentication_error"
        for headers in (
            {"Authorization": "Bearer secret"}, {"authorization": "bearer other"}, {"X-Api-Key": "other"},
            {"Authorization": "Bearer wrong", "X-Api-Key": "secret"},
        ):  # fmt: skip
            assert http.get("/v1/models", headers=headers).status_code == 200


def test_all_routes_are_below_the_prefix() -> None:
    with browser(ListenConfig(api_prefix="/a/b", api_keys=frozenset({"secret"}))) as http:
        key = {"X-Api-Key": "secret"}
        assert http.get("/a/b/health").status_code == http.get("/a/b/v1/health").status_code == 200
        assert "x-request-id" not in http.get("/a/b/health").headers
        assert http.get("/a/b/v1/models").status_code == http.get("/health").status_code == 401
        for path in ("/v1/models", "/models", "/props"):
            assert http.get("/a/b" + path, headers=key).status_code == 200
            assert http.get(path, headers=key).status_code == 404
        for path, body in {"/completion": {"prompt": "a"}, "/tokenize": {"content": "a"}}.items():
            assert http.post("/a/b" + path, json=body, headers=key).status_code == 200
            assert http.post(path, json=body, headers=key).json()["error"]["type"] == "not_found_error"
        assert http.post("/a/b/infill", json={}, headers=key).status_code == 501
        assert http.get("/a/bhealth", headers=key).status_code == 404


def test_replies_say_who_answers_and_which_request() -> None:
    with browser() as http:
        reply = http.post("/completion", json={"prompt": "a"}, headers={"X-Request-ID": "mine-1"})
        assert reply.headers["server"] == f"llamabox/{llamabox.__version__}"
        assert reply.headers["x-request-id"] == "mine-1"
        assert reply.headers["x-request-accepted-at"].isdigit()
        assert reply.headers["x-response-tokens-per-second"] == "0.000000"
        assert http.get("/v1/models").headers["x-request-id"].isdigit()
        for bad in ("a b", "x" * 200, ""):
            assert http.get("/v1/models", headers={"X-Request-ID": bad}).headers["x-request-id"].isdigit()
        assert "x-request-id" not in http.get("/health").headers


def test_one_line_a_request_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "llamabox"), browser() as http:
        http.post("/v1/completions", json={"prompt": "SECRET", "n": 2}, headers={"X-Request-ID": "mine"})
        http.get("/health")
    lines = [record.message for record in caplog.records if record.name == "llamabox.server.http.middleware.chain"]
    assert len(lines) == 1
    assert lines[0].startswith("mine POST /v1/completions 200 prompt=8 cached=2 generated=2 ")
    assert re.search(r" queue_ms=[\d.]+ ttft_ms=[\d.]+ total_ms=[\d.]+$", lines[0])
    assert "SECRET" not in caplog.text


def test_the_line_has_its_facts_by_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "llamabox"), browser() as http:
        http.post("/completion", json={"prompt": "x"}, headers={"X-Request-ID": "one"})
        http.post("/tokenize", json={"content": "x"}, headers={"X-Request-ID": "two"})
    one, two = [record.facts for record in caplog.records if record.name == "llamabox.server.http.middleware.chain"]
    times = {name: one.pop(name) for name in ("queue_ms", "ttft_ms", "total_ms")}
    assert all(isinstance(value, float) for value in times.values())
    assert 0 < times["ttft_ms"] <= times["total_ms"]
    assert one == {
        "id": "one", "method": "POST", "route": "/completion", "status": 200, "prompt": 8, "cached": 2, "generated": 1,
    }  # fmt: skip
    assert list(two) == ["id", "method", "route", "status", "total_ms"]


@pytest.mark.parametrize(("verbosity", "shown"), [(0, False), (1, False), (2, True)])
def test_prompts_are_logged_from_verbosity_two_on(
    verbosity: int, shown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    message = {"role": "user", "content": "SECRET"}
    with caplog.at_level(log.level(verbosity), "llamabox"), browser() as http:
        http.post("/v1/chat/completions", json={"messages": [message]})
        http.post("/completion", json={"prompt": ["HIDDEN", [5, 6]]})
    assert [word in caplog.text for word in ("SECRET", "HIDDEN", "[5, 6]")] == [shown] * 3


def test_health_checks_and_scrapes_are_logged_from_verbosity_one_on(caplog: pytest.LogCaptureFixture) -> None:
    for verbosity in (0, 1):
        caplog.clear()
        with caplog.at_level(log.level(verbosity), "llamabox"), browser() as http:
            http.get("/health")
            http.get("/metrics")
        assert ("/health 200" in caplog.text, "/metrics 501" in caplog.text) == (bool(verbosity), bool(verbosity))


def test_a_client_that_left_before_the_reply_is_gone() -> None:
    facts = RequestRecord("one", 0).facts("POST", "/completion")
    assert (facts["status"], list(facts)) == (None, ["id", "method", "route", "status", "total_ms"])
    assert line(facts).startswith("one POST /completion gone total_ms=")


def test_a_path_is_one_word_of_the_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "llamabox"), browser() as http:
        http.get("/x%20200%20generated=9%1b[31m%c2%85%e2%80%a8")
    [record] = [record for record in caplog.records if record.name == "llamabox.server.http.middleware.chain"]
    text = log.OneLine(colors=False).format(record)
    assert "/x%20200%20generated=9\\x1b[31m\\x85\\u2028 404 " in text
