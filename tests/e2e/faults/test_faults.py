"""What clients get wrong or do on purpose: a clear 400 (or 413), never a crash, and nobody else is disturbed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.server_process import ServerProcess
from tests.e2e.survival import unharmed

N_VOCAB = 49152


@pytest.fixture(scope="module")
def shared(serve: Callable[..., ServerProcess]) -> ServerProcess:
    return serve("-c", "4096", "-np", "2", "--max-body", "4")


@pytest.fixture
def server(shared: ServerProcess) -> Iterator[ServerProcess]:
    yield from unharmed(shared)


def refused(response: httpx.Response, named: str) -> None:
    error = response.json()["error"]
    assert response.status_code == 400, response.text
    assert error["type"] == "invalid_request_error"
    assert named in error["message"]
    assert response.json()["detail"] == error["message"]


WRONG_NUMBERS: list[tuple[str, Any]] = [
    ("temperature", "hot"),
    ("temperature", True),
    ("temperature", [1]),
    ("top_p", "0.9"),
    ("repeat_penalty", 0),
    ("repeat_penalty", -1),
    ("seed", 2**64),
    ("seed", 1.5),
    ("n_predict", -2),
    ("n_predict", 10**30),
    ("n_predict", 1.5),
    ("n_predict", True),
    ("n_keep", -2),
    ("n_discard", -1),
    ("n", 10**6),
    ("n", 0),
    ("n", 3),
    ("id_slot", 2),
    ("top_k", 0.5),
    ("top_k", 2**40),
    ("dry_allowed_length", -1),
    ("min_keep", -1),
    ("frequency_penalty", "high"),
    ("stream", "yes"),
    ("cache_prompt", 1),
    ("stop", 5),
    ("stop", [5]),
    ("samplers", 5),
    ("logit_bias", 5),
]


def test_a_wrong_number_is_named(server: ServerProcess) -> None:
    for field, value in WRONG_NUMBERS:
        refused(server.post("/completion", {"prompt": "Hi", "n_predict": 2, field: value}), field)


CLAMPED_OR_SERVED: list[dict[str, Any]] = [
    {"temperature": 999999},
    {"temperature": -1},
    {"top_k": -1},
    {"top_p": 5},
    {"min_p": -1},
    {"repeat_last_n": -1, "repeat_penalty": 1.1},
    {"dry_multiplier": 0.8, "dry_penalty_last_n": -1},
    {"seed": -1},
    {"seed": 2**32 - 1},
    {"seed": 2**53 - 1},
    {"seed": -(2**31)},
    {"n_predict": 0},
    {"temperature": None, "seed": None, "stop": None, "max_tokens": None},
    {"mirostat": 1},
    {"mirostat": 2},
    {"dynatemp_range": 0.5, "temperature": 0.7},
    {"xtc_probability": 0.5, "xtc_threshold": 0.1},
    {"typical_p": 0.5},
    {"top_n_sigma": 1.0},
    {"samplers": []},
    {"samplers": ["top_k", "nonsense", "temp"]},
    {"logit_bias": [[5, False], ["Hello", -3.5]]},
    {"presence_penalty": 1.5, "frequency_penalty": -1.5},
    {"unknown_field": {"a": 1}},
]


def test_a_documented_clamp_or_value_is_served(server: ServerProcess) -> None:
    for fields in CLAMPED_OR_SERVED:
        answer = server.ok("/completion", {"prompt": "Hello there", "n_predict": 3, **fields})
        assert answer["tokens_predicted"] <= 4096, fields


def test_no_number_that_is_none(server: ServerProcess) -> None:
    for literal in ("NaN", "Infinity", "-Infinity", "1e400"):
        body = f'{{"prompt": "Hi", "n_predict": 2, "top_p": {literal}}}'
        assert server.http.post("/completion", content=body).status_code == 400, literal


NO_PROMPTS: list[Any] = [
    [-1],
    [N_VOCAB],
    [1, 2, 3.5],
    [1, True],
    [[1], [N_VOCAB]],
    ["text", -1],
    [],
    [[]],
    {},
    5,
    None,
    {"prompt_string": 5},
]


def test_a_prompt_that_is_none(server: ServerProcess) -> None:
    for prompt in NO_PROMPTS:
        assert server.post("/completion", {"prompt": prompt, "n_predict": 2}).status_code == 400, prompt


def test_a_bias_on_no_token(server: ServerProcess) -> None:
    for bias in ([[N_VOCAB, 1]], [[-1, 1]], {str(N_VOCAB): 1}, [[1.5, 1]], [[1]], [[1, "x"]]):
        refused(server.post("/completion", {"prompt": "Hi", "n_predict": 2, "logit_bias": bias}), "logit_bias")


def test_detokenize_of_no_tokens(server: ServerProcess) -> None:
    for tokens in ([-1], [N_VOCAB], ["x"], "x", None):
        assert server.post("/detokenize", {"tokens": tokens}).status_code == 400, tokens


def test_a_body_over_the_limit_is_cut_off(server: ServerProcess) -> None:
    response = server.post("/completion", {"prompt": "x" * (5 << 20)})
    assert response.status_code == 413


@pytest.mark.parametrize("unit", ["\n", "a", " ", "😀", "word ", "<|im_start|>"])
def test_a_prompt_of_megabytes_is_refused_while_a_stream_runs_on(server: ServerProcess, unit: str) -> None:
    stream = server.stream("/completion", {"prompt": "Count: 1 2 3", "n_predict": 40, "ignore_eos": True})
    next(stream)
    with httpx.Client(base_url=server.url, timeout=60) as http:
        response = http.post("/completion", json={"prompt": unit * (1_500_000 // len(unit.encode()))})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "exceed_context_size_error"
    assert list(stream)[-1]["tokens_predicted"] == 40


def test_deeply_nested_json(server: ServerProcess) -> None:
    for opener, closer in (("[", "]"), ('{"a":', "}")):
        body = '{"prompt": ' + opener * 100_000 + "1" + closer * 100_000 + "}"
        assert server.http.post("/completion", content=body).status_code == 400, opener


def test_a_body_that_is_no_json_object(server: ServerProcess) -> None:
    for content in (b"", b"{", b"null", b"[]", b"5", b'"x"', b"\xff\xfe", b'{"prompt": "\xff"}', b"{'a': 1}"):
        for path in ("/completion", "/v1/completions", "/v1/chat/completions", "/tokenize"):
            assert server.http.post(path, content=content).status_code == 400, (path, content)


STRANGE_HISTORIES: list[list[dict[str, Any]]] = [
    [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": None, "type": "function", "function": {"name": "f", "arguments": "{broken"}}],
        },
        {"role": "tool", "tool_call_id": "x", "content": "42"},
    ],
    [{"role": "tool", "content": "42"}, {"role": "user", "content": "And?"}],
    [{"role": "user", "content": ""}],
    [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
    [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hel"}],
]


def test_a_strange_history_is_answered(server: ServerProcess) -> None:
    for messages in STRANGE_HISTORIES:
        server.ok("/v1/chat/completions", {"messages": messages, "max_tokens": 4})


NO_MESSAGES: list[Any] = [
    None,
    "string",
    [123],
    [{}],
    [{"role": 123, "content": "x"}],
    [{"role": "user", "content": 123}],
    [{"role": "user", "content": [{"type": "nonsense"}]}],
    [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
]


def test_messages_that_are_none(server: ServerProcess) -> None:
    for messages in NO_MESSAGES:
        response = server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 4})
        assert response.status_code == 400, messages
        assert "message" in response.json()["error"]


def test_broken_characters_give_valid_json_and_streamed_equals_plain(server: ServerProcess) -> None:
    """Single bytes of multi-byte characters are forced out of the model: the text is what they decode to."""
    pieces = server.ok("/tokenize", {"content": "😀 ば", "with_pieces": True})["tokens"]
    halves = [token["id"] for token in pieces if isinstance(token["piece"], list)]
    assert halves, "the tokenizer splits no character"
    for bias in ([[halves[0], 100]], [[token, 100] for token in halves]):
        body = {"prompt": "x", "n_predict": 9, "temperature": 1.0, "seed": 5, "logit_bias": bias, "ignore_eos": True}
        plain = server.ok("/completion", body)
        events = list(server.stream("/completion", {**body, "return_tokens": True}))
        assert "".join(event["content"] for event in events) == plain["content"]
        assert sum(len(event["tokens"]) for event in events[:-1]) == 9
        assert plain["content"]


def test_text_held_for_a_stop_string_is_not_lost_at_the_limit(server: ServerProcess) -> None:
    body = {"prompt": "1, 2, 3, 4, 5,", "n_predict": 6, "temperature": 0}
    whole = server.ok("/completion", body)["content"]
    stopped = {**body, "stop": [whole[-3:] + "never"]}
    assert server.ok("/completion", stopped)["content"] == whole
    assert "".join(event["content"] for event in server.stream("/completion", stopped)) == whole


def test_many_bad_requests_at_once_disturb_no_stream(server: ServerProcess) -> None:
    body = {"prompt": "Once upon a time", "n_predict": 60, "temperature": 0, "ignore_eos": True}
    alone = server.ok("/completion", body)["content"]
    bad = [{"prompt": [N_VOCAB]}, {"prompt": "x", "seed": 2**65}, {"prompt": "y " * 9000}, {"n_predict": 1}]

    def pester() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for i in range(40):
                assert http.post("/completion", content=json.dumps(bad[i % len(bad)])).status_code == 400

    threads = [threading.Thread(target=pester) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert "".join(event["content"] for event in server.stream("/completion", body)) == alone
    for thread in threads:
        thread.join()
