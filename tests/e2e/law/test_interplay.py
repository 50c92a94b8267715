"""Parts that are tested alone elsewhere, in one request and side by side: each keeps its word."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.e2e.server_process import ServerProcess, children
from tests.models.adapters import make_lora

Serve = Callable[..., ServerProcess]

PET = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "the_number_of_legs_it_has": {"type": "integer", "minimum": 0, "maximum": 8},
        "does_it_like_to_swim": {"type": "boolean"},
    },
    "required": ["name", "the_number_of_legs_it_has", "does_it_like_to_swim"],
    "additionalProperties": False,
}
WORDS = 'root ::= ([a-z]+ " ")+'
FIM = [
    word
    for name, token in {"pre": 11, "suf": 12, "mid": 13}.items()
    for word in ("--override-kv", f"tokenizer.ggml.fim_{name}_token_id=int:{token}")
]
HEADER = "X-Request-Tokens-Per-Second"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interplay")
    make_lora(folder / "a.gguf", seed=1)
    make_lora(folder / "b.gguf", seed=2)
    return folder


@pytest.fixture(scope="module")
def server(serve: Serve, folder: Path) -> ServerProcess:
    loras = ("--lora-scaled", str(folder / "a.gguf"), "0.5", "--lora", str(folder / "b.gguf"))
    return serve("-np", "4", "-c", "1024", "-tps", "40", *loras, "--infill", *FIM)


def test_everything_in_one_request(server: ServerProcess) -> None:
    """Schema, LoRA, log-probabilities, progress, n and cache reuse; streamed and plain say the same."""
    body = {
        "prompt": "A pet that I once had was rather strange. " * 8, "n_predict": 60, "json_schema": PET, "n": 2,
        "lora": [{"id": 1, "scale": 0.7}], "n_probs": 2, "n_cache_reuse": 8, "temperature": 0, "return_tokens": True,
    }  # fmt: skip
    server.ok("/completion", body)  # so that both of the following find the prompt computed
    plain = server.ok("/completion", body)
    events = list(server.stream("/completion", {**body, "return_progress": True, "timings_per_token": True}))
    for index in (0, 1):
        mine = [event for event in events if event["index"] == index]
        text = "".join(event["content"] for event in mine)
        assert text == plain[index]["content"]
        jsonschema.validate(json.loads(text), PET)
        probable = [entry for event in mine for entry in event.get("completion_probabilities", ())]
        said = [entry["id"] for entry in probable]
        assert said == plain[index]["tokens"] == [entry["id"] for entry in plain[index]["completion_probabilities"]]
        assert mine[-1]["generation_settings"]["lora"] == [{"id": 1, "scale": 0.7}]
        assert mine[-1]["tokens_predicted"] == len(said) == plain[index]["tokens_predicted"]
    assert any("prompt_progress" in event for event in events)


def test_a_grammar_holds_over_context_shifts(server: ServerProcess) -> None:
    body = {"prompt": "the " * 150, "n_predict": 250, "n_keep": 20, "temperature": 0, "grammar": WORDS}
    answer = server.ok("/completion", {**body, "lora": [{"id": 0, "scale": 1}], "n_probs": 1})
    assert answer["truncated"]
    assert answer["tokens_predicted"] == len(answer["completion_probabilities"]) == 250
    assert re.fullmatch("([a-z]+ )*[a-z]*", answer["content"])


@pytest.mark.parametrize("stop", [["_number"], ['"does_it'], ["never"]], ids=str)
@pytest.mark.parametrize("logprobs", [False, True])
def test_chat_in_a_form_ends_at_a_stop_string(server: ServerProcess, stop: list[str], logprobs: bool) -> None:
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Invent a pet."}], "temperature": 0, "max_tokens": 60,
        "response_format": {"type": "json_schema", "json_schema": {"schema": PET}}, "logprobs": logprobs,
    }  # fmt: skip
    whole = server.ok("/v1/chat/completions", body)["choices"][0]["message"]["content"]
    plain = server.ok("/v1/chat/completions", {**body, "stop": stop})["choices"][0]
    chunks = [event["choices"][0] for event in server.stream("/v1/chat/completions", {**body, "stop": stop})]
    ends = [whole.index(word) for word in stop if word in whole]
    assert plain["message"]["content"] == whole[: min(ends, default=None)]
    assert "".join(chunk["delta"].get("content") or "" for chunk in chunks) == plain["message"]["content"]
    assert plain["finish_reason"] == chunks[-1]["finish_reason"] == "stop"
    if logprobs:
        tokens = [entry["token"] for entry in plain["logprobs"]["content"]]
        assert tokens == [entry["token"] for chunk in chunks for entry in (chunk["logprobs"] or {}).get("content", ())]
        assert plain["message"]["content"].startswith("".join(tokens[:-1])), "the last one may be half shown"


def test_forced_tokens_are_paced_one_by_one(server: ServerProcess) -> None:
    """No lump of them with a silence behind it: by the server's own clock no token comes before its time."""
    body = {"prompt": "x", "json_schema": PET, "n_predict": 60, "temperature": 0, "timings_per_token": True}
    tokens: list[int] = []
    with server.http.stream("POST", "/completion", json={**body, "stream": True}, headers={HEADER: "20"}) as response:
        events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    for event in events:
        tokens += event["tokens"]
        timings = event["timings"]
        # A late token may catch up a quarter of a second.
        assert timings["predicted_n"] - 1 <= (timings["predicted_ms"] / 1e3 + 0.25) * 20 + 1, timings
    assert tokens == server.ok("/completion", {**body, "return_tokens": True})["tokens"]
    assert len(tokens) >= 15


def test_infill_takes_what_completion_takes(serve: Serve, server: ServerProcess) -> None:
    body = {"input_prefix": "def add(a, b):\n    ", "input_suffix": "\n    return c\n", "n_predict": 60, "id_slot": 2}
    answer = server.ok("/infill", {**body, "grammar": 'root ::= "c = a + b"', "n_probs": 2})
    assert (answer["content"], answer["id_slot"], answer["stop_type"]) == ("c = a + b", 2, "eos")
    assert len(answer["completion_probabilities"]) == answer["tokens_predicted"]
    with_default = serve("--infill", *FIM, "--grammar", "root ::= [0-9]+", "-c", "256", "--no-warmup")
    assert re.fullmatch("[0-9]+", with_default.ok("/infill", {**body, "id_slot": 0, "n_predict": 6})["content"])
    own = with_default.ok("/infill", {**body, "id_slot": 0, "json_schema": PET, "seed": 1})
    jsonschema.validate(json.loads(own["content"]), PET)


def test_streams_keep_the_lora_set_that_they_began_with(server: ServerProcess) -> None:
    body = {"prompt": "Once upon a time", "n_predict": 60, "temperature": 0, "ignore_eos": True}
    alone = server.ok("/completion", body)
    streams = [server.stream("/completion", body) for _ in range(3)]
    said = [next(stream)["content"] for stream in streams]
    try:
        server.ok("/lora-adapters", [{"id": 0, "scale": 1}])
        assert server.ok("/completion", body)["content"] != alone["content"]
        for first, stream in zip(said, streams, strict=True):
            assert first + "".join(event["content"] for event in stream) == alone["content"]
    finally:
        server.ok("/lora-adapters", [{"id": 0, "scale": 0.5}, {"id": 1, "scale": 1}])


def test_a_worker_that_is_killed_amid_a_constrained_stream_leaves_no_process(serve: Serve) -> None:
    server = serve("-c", "2048", "-np", "2", "--no-warmup", "-n", "-1")
    events: list[dict[str, Any]] = []
    begun = threading.Event()

    def read() -> None:
        endless = {"type": "array", "items": {"type": "integer"}, "minItems": 900}
        for event in server.stream("/completion", {"prompt": "x", "json_schema": endless}):
            events.append(event)
            begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(60)
    worker = server.worker_pid()
    helpers = children(worker)
    assert helpers, "grammars are tried out in a process of their own"
    os.kill(worker, signal.SIGKILL)
    reader.join(60)
    assert events[-1]["error"]["type"] == "unavailable_error"
    server.wait_ready()
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in helpers):
        assert time.monotonic() < deadline, "a helper outlived its worker"
        time.sleep(0.02)
    answer = server.ok("/completion", {"prompt": "x", "json_schema": PET, "n_predict": 60})
    jsonschema.validate(json.loads(answer["content"]), PET)


def is_running(pid: int) -> bool:
    """Not ended; a zombie that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
