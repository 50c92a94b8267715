"""Each route's replies against docs/api.md: status, exact keys, types; plain, streamed and refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.server_process import ServerProcess
from tests.e2e.shapes import (
    ADAPTER,
    ENVELOPE,
    FINAL,
    LEGACY_LOGPROBS,
    LIST_ENDS,
    MODEL,
    NUMBER,
    OLLAMA_MODEL,
    PARTIAL,
    PROBABILITIES,
    PROGRESS,
    PROPS,
    RANKED,
    RANKING,
    SLOT,
    TEXT_OR_NULL,
    TIMINGS,
    USAGE,
    USED_SLOT,
    assert_shape,
)
from tests.models.adapters import make_lora

CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slots")


@pytest.fixture(scope="module")
def server(serve: Callable[..., ServerProcess], folder: Path) -> ServerProcess:
    arguments = ("-c", "512", "-np", "2", "-n", "64", "-s", "42", "-a", "smol,demo")
    return serve(*arguments, "--metrics", "--slot-save-path", str(folder))


@pytest.fixture(scope="module")
def equipped(serve: Callable[..., ServerProcess], folder: Path) -> ServerProcess:
    """With two adapters, and a model that is told which of its tokens to fill the middle with."""
    arguments = ["-c", "512", "-np", "2", "--infill", "-tps", "50"]
    for name, token in (("pre", 11), ("suf", 12), ("mid", 13)):
        arguments += ["--override-kv", f"tokenizer.ggml.fim_{name}_token_id=int:{token}"]
    make_lora(folder / "a.gguf", seed=1)
    make_lora(folder / "b.gguf", seed=2)
    return serve(*arguments, "--lora", str(folder / "a.gguf"), "--lora-scaled", str(folder / "b.gguf"), "0.5")


@pytest.fixture(scope="module")
def judge(reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A reranker."""
    with ServerProcess(tmp_path_factory.mktemp("judge") / "log", "-m", str(reranker), "--rerank") as server:
        yield server


@pytest.fixture(scope="module")
def bare(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Every gate closed."""
    log = tmp_path_factory.mktemp("bare") / "log"
    with ServerProcess(log, "-m", str(model), "-c", "64", "--no-warmup") as server:
        yield server


def events(server: ServerProcess, path: str, body: dict[str, Any]) -> list[Any]:
    """Of a stream, each `data:` line; the last may be [DONE]. Nothing but such lines comes."""
    with server.http.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache"
        text = "".join(response.iter_text())
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    return [block[6:] if block == "data: [DONE]" else json.loads(block[6:]) for block in blocks]


def refused(response: Any, status: int, kind: str) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    body = response.json()
    extra = {"n_prompt_tokens": int, "n_ctx": int} if kind == "exceed_context_size_error" else {}
    named = re.match(r"Field '([^']+)'", body["detail"])
    if kind == "invalid_request_error" and (named or "param" in body["error"]):
        extra = {"param": str}
        assert named is None or named[1] == body["error"]["param"]
    assert_shape(body, {"error": {"code": int, "message": str, "type": str, **extra}, "detail": str})
    assert (body["error"]["code"], body["error"]["type"]) == (status, kind)
    assert body["detail"] == body["error"]["message"]
    return str(body["detail"])


@pytest.mark.parametrize("path", ["/health", "/v1/health"])
def test_health(server: ServerProcess, path: str) -> None:
    response = server.http.get(path)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert response.headers["server"].startswith("llamabox/")
    assert "x-request-id" not in response.headers


def test_every_other_reply_is_named(server: ServerProcess) -> None:
    given = server.http.get("/props", headers={"X-Request-ID": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    made = server.http.get("/nothing")
    assert int(made.headers["x-request-id"]) == int(made.headers["x-request-accepted-at"])


def test_props(server: ServerProcess) -> None:
    props = server.http.get("/props").json()
    assert_shape(props, PROPS)
    assert props["model_path"].endswith(".gguf")
    assert props["total_slots"] == 2
    assert props["default_generation_settings"]["n_ctx"] == 256
    assert props["default_generation_settings"]["params"]["seed"] == 42
    assert props["model_alias"] == "demo"
    refused(server.post("/props", {}), 501, "not_supported_error")


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
def test_models(server: ServerProcess, path: str) -> None:
    listed = server.http.get(path).json()
    assert_shape(listed, {"object": str, "data": [MODEL], "models": [OLLAMA_MODEL], **LIST_ENDS})
    (entry,) = listed["data"]
    assert (entry["id"], entry["aliases"]) == ("demo", ["demo", "smol"])
    assert entry["meta"]["n_ctx"] == 256
    assert listed["models"][0]["capabilities"] == ["completion"]


def test_slots(server: ServerProcess, serve: Callable[..., ServerProcess]) -> None:
    fresh = serve("-c", "512", "-np", "2", "--no-warmup")
    assert_shape(fresh.http.get("/slots").json(), [SLOT])
    server.ok("/completion", {"prompt": "Hi", "n_predict": 1, "id_slot": 1})
    listed = server.http.get("/slots").json()
    assert len(listed) == 2
    assert_shape(listed[1], USED_SLOT)
    assert (listed[1]["n_ctx"], listed[1]["next_token"][0]["n_remain"], listed[1]["next_token"][0]["n_decoded"]) == (
        256, -1, 0,
    )  # fmt: skip
    assert server.http.get("/slots?fail_on_no_slot").status_code == 200
    streams = [server.stream("/completion", {"prompt": "x", "n_predict": 64, "ignore_eos": True}) for _ in range(2)]
    for stream in streams:
        next(stream)
    assert refused(server.http.get("/slots?fail_on_no_slot=0"), 503, "unavailable_error") == "no slot available"
    busy = server.http.get("/slots").json()
    assert_shape(busy, [USED_SLOT])
    assert [(slot["is_processing"], slot["state"]) for slot in busy] == [(True, 4)] * 2
    assert all(slot["next_token"][0]["n_remain"] >= 0 for slot in busy)
    for stream in streams:
        list(stream)


def test_slot_actions(server: ServerProcess, folder: Path) -> None:
    server.ok("/completion", {"prompt": "Hi there", "n_predict": 3, "id_slot": 0})
    saved = server.ok("/slots/0?action=save", {"filename": "x"})
    named = {"id_slot": int, "filename": str}
    assert_shape(saved, {**named, "n_saved": int, "n_written": int, "timings": {"save_ms": NUMBER}})
    restored = server.ok("/slots/1?action=restore", {"filename": "x"})
    assert_shape(restored, {**named, "n_restored": int, "n_read": int, "timings": {"restore_ms": NUMBER}})
    assert_shape(server.ok("/slots/0?action=erase", {}), {"id_slot": int, "n_erased": int})
    for path in ("/slots/2?action=erase", "/slots/-1?action=erase", "/slots/1e0?action=erase", "/slots/²?action=erase"):
        assert "Invalid slot ID" in refused(server.post(path, {}), 400, "invalid_request_error")
    for path in ("/slots/0", "/slots/0?action=", "/slots/0?action=SAVE"):
        assert "Invalid action" in refused(server.post(path, {}), 400, "invalid_request_error")
    for body in ({}, {"filename": None}, {"filename": "../x"}, {"filename": "missing"}):
        refused(server.post("/slots/0?action=restore", body), 400, "invalid_request_error")


def test_tokenize_and_detokenize(server: ServerProcess) -> None:
    text = "What is 😀 a book?"
    tokens = server.ok("/tokenize", {"content": text})
    assert_shape(tokens, {"tokens": [int]})
    pieces = server.ok("/tokenize", {"content": text, "with_pieces": True})
    assert_shape(pieces, {"tokens": [{"id": int, "piece": (str, list)}]})
    assert [one["id"] for one in pieces["tokens"]] == tokens["tokens"]
    said = b"".join(
        one["piece"].encode() if isinstance(one["piece"], str) else bytes(one["piece"]) for one in pieces["tokens"]
    )
    assert said.decode() == text
    assert server.ok("/detokenize", tokens) == {"content": text, "prompt": text}
    mixed = server.ok("/tokenize", {"content": ["What", tokens["tokens"][1], " it"]})["tokens"]
    assert tokens["tokens"][1] in mixed
    assert server.ok("/tokenize", {"content": ""}) == {"tokens": []}
    assert server.ok("/detokenize", {"tokens": []}) == {"content": "", "prompt": ""}
    refused(server.post("/tokenize", {}), 400, "invalid_request_error")
    refused(server.post("/detokenize", {}), 400, "invalid_request_error")


@pytest.mark.parametrize("path", ["/completion", "/completions"])
def test_native_completion(server: ServerProcess, path: str) -> None:
    body = {"prompt": "Hi there", "n_predict": 3, "temperature": 0, "ignore_eos": True}
    plain = server.post(path, body)
    assert_shape(plain.json(), FINAL)
    assert float(plain.headers["x-response-tokens-per-second"]) > 0
    probable = server.ok(path, {**body, "n_probs": 2, "return_tokens": True})
    assert_shape(probable, {**FINAL, "completion_probabilities": PROBABILITIES})
    assert len(probable["tokens"]) == 3
    several = server.ok(path, {**body, "prompt": ["a", [5, 6], ["b", 7]]})
    assert_shape(several, [FINAL])
    assert [one["index"] for one in several] == [0, 1, 2]
    *partial, final = events(server, path, {**body, "timings_per_token": True, "n_probs": 2})
    assert_shape(partial, [{**PARTIAL, "timings": TIMINGS, "completion_probabilities": PROBABILITIES}])
    assert_shape(final, FINAL)
    assert_shape(events(server, path, body)[:-1], [PARTIAL])
    banned = server.ok(path, {**body, "logit_bias": {" the": False, "5": 1, " the end": -2}})
    assert_shape(banned, FINAL)
    the, end = server.ok("/tokenize", {"content": " the end"})["tokens"]
    shown = {one["token"]: one["bias"] for one in banned["generation_settings"]["logit_bias"]}
    assert (shown[the], shown[end], shown[5]) == (-2, -2, 1)
    refused(server.post(path, {"n_predict": 2}), 400, "invalid_request_error")
    refused(server.post(path, {"prompt": "x " * 600, "stream": True}), 400, "exceed_context_size_error")


def test_openai_completions(server: ServerProcess) -> None:
    body = {"prompt": "Hi there", "max_tokens": 3, "ignore_eos": True}
    choice = {"index": int, "finish_reason": TEXT_OR_NULL, "logprobs": type(None), "text": str}
    shape = {**ENVELOPE, "choices": [choice], "usage": USAGE, "timings": TIMINGS}
    plain = server.ok("/v1/completions", body)
    assert_shape(plain, shape)
    assert plain["id"].startswith("cmpl-")
    assert (plain["object"], plain["model"], plain["system_fingerprint"][0]) == ("text_completion", "demo", "b")
    assert plain["choices"][0]["finish_reason"] == "length"
    assert server.ok("/v1/completions", {**body, "model": "mine"})["model"] == "mine"
    probable = server.ok("/v1/completions", {**body, "logprobs": 2})
    assert_shape(probable, {**shape, "choices": [{**choice, "logprobs": LEGACY_LOGPROBS}]})
    assert len(server.ok("/v1/completions", {**body, "prompt": ["a", "b"], "n": 2})["choices"]) == 4
    chunk = {**ENVELOPE, "choices": [choice]}
    *partial, final, done = events(server, "/v1/completions", body)
    assert_shape(partial, [chunk])
    assert_shape(final, {**chunk, "usage": USAGE, "timings": TIMINGS})
    assert done == "[DONE]"
    *partial, final, done = events(server, "/v1/completions", {**body, "stream_options": {"include_usage": True}})
    assert_shape(partial, [{**chunk, "usage": type(None)}])
    assert_shape(final, {**chunk, "usage": USAGE, "timings": TIMINGS})
    assert final["choices"] == []
    *chunks, done = events(server, "/v1/completions", {**body, "stream_options": {"include_usage": False}})
    assert not any("usage" in one for one in chunks)
    for field, value in (
        ("echo", 1),
        ("best_of", 2),
        ("suffix", "x"),
        ("n", 3),
        ("stream_options", 1),
        ("prompt", None),
    ):
        assert field in refused(server.post("/v1/completions", {**body, field: value}), 400, "invalid_request_error")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
def test_chat(server: ServerProcess, path: str) -> None:
    choice = {
        "index": int, "finish_reason": str, "logprobs": type(None), "message": {"role": str, "content": str},
    }  # fmt: skip
    shape = {**ENVELOPE, "choices": [choice], "usage": USAGE, "timings": TIMINGS}
    plain = server.ok(path, CHAT)
    assert_shape(plain, shape)
    assert plain["id"].startswith("chatcmpl-")
    assert (plain["object"], plain["choices"][0]["message"]["role"]) == ("chat.completion", "assistant")
    probable = server.ok(path, {**CHAT, "logprobs": True, "top_logprobs": 2})
    assert_shape(probable["choices"][0]["logprobs"], {"content": PROBABILITIES})
    verbose = server.ok(path, {**CHAT, "verbose": True})
    assert_shape(verbose, {**shape, "__verbose": FINAL})
    assert "<|im_start|>user\nHi<|im_end|>" in verbose["__verbose"]["prompt"]
    first, *partial, final, done = events(server, path, CHAT)
    head = {"index": int, "finish_reason": TEXT_OR_NULL, "logprobs": type(None)}
    delta = {"role": str, "content": type(None)}
    assert_shape(first, {**ENVELOPE, "choices": [{**head, "delta": delta}]})
    assert_shape(partial, [{**ENVELOPE, "choices": [{**head, "delta": {"content": str}}]}])
    assert_shape(final, {**ENVELOPE, "choices": [{**head, "delta": {}}], "usage": USAGE, "timings": TIMINGS})
    assert final["object"] == "chat.completion.chunk"
    assert done == "[DONE]"
    assert len({(one["id"], one["created"], one["model"]) for one in (first, *partial, final)}) == 1
    timed = events(server, path, {**CHAT, "timings_per_token": True})
    assert "timings" not in timed[0]
    assert_shape(timed[1]["timings"], TIMINGS)
    for field, value in (("top_logprobs", 2), ("n", 3), ("max_tokens", "many"), ("stream", 1), ("messages", None)):
        assert field in refused(server.post(path, {**CHAT, field: value}), 400, "invalid_request_error")


def test_infill(equipped: ServerProcess) -> None:
    body = {
        "input_prefix": "def add(a, b):\n    ",
        "input_suffix": "\n    return c\n",
        "n_predict": 3,
        "temperature": 0,
    }
    plain = equipped.post("/infill", body)
    assert_shape(plain.json(), FINAL)
    assert float(plain.headers["x-response-tokens-per-second"]) > 0
    probable = equipped.ok("/infill", {**body, "n_probs": 2, "response_fields": ["index", "completion_probabilities"]})
    assert_shape(probable, {"index": int, "completion_probabilities": PROBABILITIES})
    several = equipped.ok("/infill", {**body, "n": 2, "lora": [{"id": 1, "scale": 0.25}]})
    assert_shape(several, [FINAL])
    assert [one["generation_settings"]["lora"] for one in several] == [[{"id": 1, "scale": 0.25}]] * 2
    streamed = events(equipped, "/infill", {**body, "timings_per_token": True, "return_progress": True})
    progress = [one for one in streamed if "prompt_progress" in one]
    assert_shape(progress, [{**PARTIAL, "timings": TIMINGS, "prompt_progress": PROGRESS}])
    *partial, final = streamed[len(progress) :]
    assert progress
    assert partial
    assert_shape(partial, [{**PARTIAL, "timings": TIMINGS}])
    assert_shape(final, FINAL)
    assert "".join(one["content"] for one in streamed) == plain.json()["content"]
    for field in ("input_prefix", "input_suffix"):
        assert field in refused(equipped.post("/infill", {**body, field: None}), 400, "invalid_request_error")
    for field in ("prompt", "input_extra", "grammar", "n_probs"):
        assert field in refused(equipped.post("/infill", {**body, field: [1]}), 400, "invalid_request_error")
    beyond = equipped.http.post("/infill", json=body, headers={"X-Request-Tokens-Per-Second": "51"})
    assert (beyond.status_code, beyond.headers["content-type"]) == (410, "text/plain; charset=utf-8")


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank", "/reranking", "/v1/reranking"])
def test_rerank(judge: ServerProcess, path: str) -> None:
    body: dict[str, Any] = {"query": "Who?", "documents": ["It was me.", {"text": "Nobody knows.", "id": 1}]}
    plain = judge.ok(path, body)
    assert_shape(plain, {**RANKING, "results": [{**RANKED, "document": dict}]})
    assert sorted(map(str, (one["document"] for one in plain["results"]))) == sorted(
        map(str, ({"text": "It was me."}, body["documents"][1]))
    )
    assert plain["object"] == "list"
    assert plain["model"].endswith(".gguf")
    bare = judge.ok(path, {**body, "return_documents": False, "model": "mine", "top_n": 1})
    assert_shape(bare, RANKING)
    assert (bare["model"], len(bare["results"])) == ("mine", 1)
    body = {"query": "Who?", "texts": ["It was me.", "Nobody knows."]}
    assert_shape(judge.ok(path, body), [{"index": int, "score": NUMBER}])
    assert_shape(judge.ok(path, {**body, "return_text": True}), [{"index": int, "score": NUMBER, "text": str}])
    for field, value in (("query", None), ("texts", []), ("top_n", 0), ("return_text", 1), ("raw_scores", "no")):
        assert field in refused(judge.post(path, {**body, field: value}), 400, "invalid_request_error")
    long = refused(judge.post(path, {**body, "texts": ["short", "long " * 600]}), 400, "exceed_context_size_error")
    assert "text 1" in long


def test_lora_adapters(equipped: ServerProcess) -> None:
    listed = equipped.http.get("/lora-adapters").json()
    assert_shape(listed, [ADAPTER])
    assert [(one["id"], one["scale"]) for one in listed] == [(0, 1), (1, 0.5)]
    try:
        assert equipped.ok("/lora-adapters", [{"id": 1, "scale": 2}]) == {"success": True}
        assert [one["scale"] for one in equipped.http.get("/lora-adapters").json()] == [0, 2]
        shown = equipped.http.get("/props").json()["default_generation_settings"]
        assert shown["lora"] == shown["params"]["lora"] == [{"id": 1, "scale": 2}]
        for body in ({}, [{"id": 0, "scale": 1}, {"id": 2, "scale": 1}], [{"id": 0}], [0]):
            refused(equipped.post("/lora-adapters", body), 400, "invalid_request_error")
        assert [one["scale"] for one in equipped.http.get("/lora-adapters").json()] == [0, 2]
    finally:
        equipped.ok("/lora-adapters", [{"id": 0, "scale": 1}, {"id": 1, "scale": 0.5}])


def test_templates_and_their_tokens(server: ServerProcess) -> None:
    shown = server.ok("/apply-template", CHAT)
    assert shown == {"prompt": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"}
    for tools in (None, []):
        assert server.ok("/apply-template", {**CHAT, "tools": tools}) == shown
    bare = server.ok("/apply-template", {**CHAT, "add_generation_prompt": False})
    assert bare == {"prompt": "<|im_start|>user\nHi<|im_end|>\n"}
    n_tokens = server.ok("/v1/chat/completions/input_tokens", CHAT)
    assert_shape(n_tokens, {"input_tokens": int, "object": str})
    assert n_tokens["input_tokens"] == server.ok("/v1/chat/completions", CHAT)["usage"]["prompt_tokens"]
    refused(server.post("/apply-template", {}), 400, "invalid_request_error")


def test_metrics(server: ServerProcess) -> None:
    response = server.http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4"
    assert int(response.headers["process-start-time-unix"]) > 1_700_000_000
    kinds = dict(line.split()[2:4] for line in response.text.splitlines() if line.startswith("# TYPE"))
    helped = {line.split()[2] for line in response.text.splitlines() if line.startswith("# HELP")}
    assert kinds.keys() == helped
    for name in ("prompt_tokens_total", "prompt_seconds_total", "tokens_predicted_total",
                 "tokens_predicted_seconds_total", "tokens_drafted_total", "tokens_drafted_accepted_total",
                 "n_decode_total"):  # fmt: skip
        assert kinds[f"llamacpp:{name}"] == "counter"
    assert kinds["llamacpp:n_busy_slots_per_decode"] in ("counter", "gauge")
    for name in ("prompt_tokens_seconds", "predicted_tokens_seconds", "kv_cache_usage_ratio", "kv_cache_tokens",
                 "requests_processing", "requests_deferred"):  # fmt: skip
        assert kinds[f"llamacpp:{name}"] == "gauge"


@pytest.mark.parametrize(
    ("method", "path", "flag"),
    [
        ("GET", "/slots", "--slots"),
        ("POST", "/slots/0?action=erase", "--slot-save-path"),
        ("GET", "/metrics", "--metrics"),
        ("POST", "/infill", "--infill"),
        ("GET", "/lora-adapters", "--lora"),
        ("POST", "/lora-adapters", "--lora"),
        ("POST", "/v1/embeddings", "--embeddings"),
        ("POST", "/embeddings", "--embeddings"),
        ("POST", "/embedding", "--embeddings"),
        ("POST", "/v1/rerank", "--rerank"),
        ("POST", "/v2/rerank", "--rerank"),
        ("POST", "/rerank", "--rerank"),
        ("POST", "/reranking", "--rerank"),
        ("POST", "/v1/reranking", "--rerank"),
        ("POST", "/v1/images/generations", "--images"),
        ("POST", "/v1/images/edits", "--images"),
    ],
)
def test_a_closed_gate_names_its_flag(bare: ServerProcess, method: str, path: str, flag: str) -> None:
    content = None if method == "GET" else b"[]" if path == "/lora-adapters" else b"{}"
    assert flag in refused(bare.http.request(method, path, content=content), 501, "not_supported_error")


@pytest.mark.parametrize("path", ["/v1", "/health/", "/v1/chat", "/completion/x", "//health", "/slots/0/1", "/%00"])
def test_a_path_that_nobody_knows(server: ServerProcess, path: str) -> None:
    target = server.http.base_url.copy_with(raw_path=path.encode())  # as it is: "//health" is no host
    for method in ("GET", "POST", "DELETE"):
        assert refused(server.http.request(method, target), 404, "not_found_error") == "Not Found"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/completion"), ("POST", "/health"), ("DELETE", "/slots/0"), ("PUT", "/v1/chat/completions"),
     ("GET", "/tokenize"), ("POST", "/v1/models"), ("POST", "/metrics"), ("POST", "/slots"),
     ("GET", "/infill"), ("PUT", "/lora-adapters")],
)  # fmt: skip
def test_a_method_that_is_not_taken(server: ServerProcess, method: str, path: str) -> None:
    response = server.http.request(method, path)
    refused(response, 405, "invalid_request_error")
    assert response.headers["allow"]


@pytest.mark.parametrize("path", ["/completion", "/health", "/nothing", "/v1/chat/completions"])
def test_preflight(server: ServerProcess, path: str) -> None:
    response = server.http.options(path, headers={"Origin": "https://page.example"})
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in response.headers
    assert response.headers["access-control-allow-methods"] == "GET, POST, DELETE, OPTIONS"
    assert "Authorization" in response.headers["access-control-allow-headers"]
