"""Every error is an HTTP status and a body; one table says which."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from starlette.testclient import TestClient

from llamabox import errors
from llamabox.clients.state import WorkerState
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.http.errors import STATUS, error_event, error_object, error_response, status_of
from tests.server.fake_client import FakeTextClient, saying
from tests.server.harness import text_app

ANSWERS = {
    (400, "invalid_request_error"), (400, "exceed_context_size_error"), (401, "authentication_error"),
    (403, "permission_error"), (404, "not_found_error"), (413, "invalid_request_error"), (500, "server_error"),
    (410, "invalid_request_error"), (501, "not_supported_error"), (503, "unavailable_error"),
}  # fmt: skip


def browser(client: FakeTextClient | None = None, config: ModelConfig | None = None) -> TestClient:
    return TestClient(text_app(client or FakeTextClient(saying("a")), config))


@pytest.mark.parametrize("kind", errors.all_errors().values(), ids=lambda kind: kind.__name__)
def test_the_table_knows_every_class(kind: type[errors.LlamaboxError]) -> None:
    assert status_of(kind) in ANSWERS


def test_a_client_is_never_blamed_for_what_is_not_its_request() -> None:
    for kind in errors.all_errors().values():
        is_clients = issubclass(kind, errors.RequestError) and kind is not errors.NotSupported
        assert (status_of(kind)[0] < 500) == is_clients


def test_every_row_is_of_the_tree() -> None:
    assert set(STATUS) <= set(errors.all_errors().values())


def test_body_has_error_and_detail() -> None:
    response = error_response(errors.InvalidRequest("Field 'x': no", field="x"), {})
    message = "Field 'x': no"
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert orjson.loads(response.body) == {
        "error": {"code": 400, "message": message, "type": "invalid_request_error", "param": "x"},
        "detail": message,
    }


def test_context_errors_carry_both_numbers() -> None:
    value = error_object(errors.ContextExceeded(n_prompt_tokens=300, n_ctx=256))
    assert (value["type"], value["n_prompt_tokens"], value["n_ctx"]) == ("exceed_context_size_error", 300, 256)
    assert "exceeds the available context size" in value["message"]


def test_an_error_event_is_one_event() -> None:
    event = error_event(errors.Unavailable("two\nlines"))
    assert event.startswith(b'data: {"error":{"code":503,')
    assert event.count(b"\n") == 2
    assert event.endswith(b"\n\n")


def same(reply: Any, status: int, kind: str) -> None:
    assert reply.status_code == status
    body = reply.json()
    assert body["error"]["code"] == status
    assert body["error"]["type"] == kind
    assert body["detail"] == body["error"]["message"]


def test_unknown_paths_and_wrong_methods() -> None:
    with browser() as http:
        for path in ("/v1", "/nothing", "/v1/completions/x"):
            same(http.get(path), 404, "not_found_error")
            same(http.post(path), 404, "not_found_error")
        same(http.get("/v1/models/"), 404, "not_found_error")
        reply = http.get("/v1/chat/completions")
        same(reply, 405, "invalid_request_error")
        assert reply.headers["allow"] == "POST"
        same(http.post("/health"), 405, "invalid_request_error")
        same(http.delete("/props"), 405, "invalid_request_error")


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/images/edits"])
def test_a_language_model_does_not_draw_and_says_what_would(path: str) -> None:
    with browser() as http:
        reply = http.post(path, json={"prompt": "a cat"})
        same(reply, 501, "not_supported_error")
        assert "--images" in reply.json()["detail"]


def test_features_that_are_off_name_their_flag() -> None:
    with browser() as http:
        reply = http.get("/slots")
        same(reply, 501, "not_supported_error")
        assert "--slots" in reply.json()["detail"]
        same(http.post("/props", json={}), 501, "not_supported_error")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/completion", "/tokenize", "/detokenize"])
@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"7", b'"x"', b'{"prompt": NaN}', b'{"prompt": "\\ud800"}', b"\xff\xfe",
        b'{"a":1e999}',
        b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    ids=range(12),
)  # fmt: skip
def test_what_is_not_a_json_object_is_a_400(path: str, body: bytes) -> None:
    with browser() as http:
        same(http.post(path, content=body), 400, "invalid_request_error")


def test_a_body_of_countless_values_is_refused_before_it_is_parsed() -> None:
    with browser() as http:
        same(http.post("/completion", content=b"[" + b"{}," * 1_000_000 + b"{}]"), 413, "invalid_request_error")


@pytest.mark.parametrize("state", [WorkerState.LOADING, WorkerState.RESTARTING])
def test_while_the_model_loads_every_route_says_so(state: WorkerState) -> None:
    client = FakeTextClient()
    client.state = state
    with browser(client) as http:
        for method, path in [
            ("GET", "/health"), ("GET", "/v1/health"), ("GET", "/v1/models"), ("GET", "/props"), ("GET", "/slots"),
            ("POST", "/v1/chat/completions"), ("POST", "/completion"), ("GET", "/nothing"),
        ]:  # fmt: skip
            reply = http.request(method, path)
            assert reply.status_code == 503
            assert reply.json() == {
                "error": {"code": 503, "message": "Loading model", "type": "unavailable_error"},
                "detail": "Loading model",
            }


def test_an_error_of_the_worker_before_the_first_token_is_a_status_in_streams_too() -> None:
    failing: list[tuple[errors.LlamaboxError, int, str]] = [
        (errors.ContextExceeded(n_prompt_tokens=300, n_ctx=256), 400, "exceed_context_size_error"),
        (errors.DecodeFatal("the backend failed"), 500, "server_error"),
        (errors.Unavailable("gone"), 503, "unavailable_error"),
    ]
    for error, status, kind in failing:
        with browser(FakeTextClient(lambda submit, error=error: error)) as http:  # type: ignore[misc]
            for path in ("/completion", "/v1/completions"):
                for stream in (False, True):
                    for prompt in ("a", ["a", "b"]):
                        same(http.post(path, json={"prompt": prompt, "stream": stream}), status, kind)


def test_a_bug_is_a_500_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    def broken(submit: object) -> Any:
        raise ZeroDivisionError("secret")

    with browser(FakeTextClient(broken)) as http:
        reply = http.post("/completion", json={"prompt": "a"})
    same(reply, 500, "server_error")
    assert "secret" not in reply.text
    assert "ZeroDivisionError" in caplog.text
