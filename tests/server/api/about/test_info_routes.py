"""The routes that tell about the server, the model and its tokens."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from llamabox.engine.events import SlotView
from llamabox.engine.request import GenerationParams, SamplingParams
from llamabox.errors import InvalidRequest
from llamabox.server.api.about import tokens
from llamabox.server.api.about.tokens import PIECES
from llamabox.server.api.embeddings import route as embeddings
from llamabox.server.api.native import completion as completions
from llamabox.server.api.openai.completions import route as openai_completions
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.http.threads import MANY
from llamabox.wire.questions import Detokenise, LookAtSlots, Pieces, SlotViews, Spell, TokenIds, Tokenise
from llamabox.wire.text_config import DraftModelInfo
from tests.server.fake_client import INFO, FakeTextClient, saying
from tests.server.harness import text_app


def browser(client: FakeTextClient | None = None, config: ModelConfig | None = None) -> TestClient:
    return TestClient(text_app(client or FakeTextClient(saying("a")), config))


def test_a_client_finds_somebody_at_the_root() -> None:
    with browser() as http:
        reply = http.get("/")
        assert (reply.status_code, reply.text) == (200, "llamabox is running\n")
        assert http.head("/").status_code == 200


def test_health_and_head() -> None:
    with browser() as http:
        for path in ("/health", "/v1/health"):
            assert (http.get(path).status_code, http.get(path).json()) == (200, {"status": "ok"})
            assert http.head(path).status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
def test_models(path: str) -> None:
    with browser(config=ModelConfig(alias="tiny")) as http:
        reply = http.get(path).json()
    (entry,) = reply["data"]
    assert (reply["object"], entry["object"], entry["id"], entry["owned_by"]) == ("list", "model", "tiny", "llama-box")
    assert entry["meta"] | {"vocab_type": 1, "n_vocab": 1000, "n_ctx_train": 2048, "size": 4_000_000} == entry["meta"]


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
@pytest.mark.parametrize("alias", ["tiny", "org/tiny,small one", "unknown"])
def test_one_model_by_its_name(path: str, alias: str) -> None:
    with browser(config=ModelConfig(alias=alias)) as http:
        [entry] = http.get(path).json()["data"]
        names = ["tiny.gguf"] if alias == "unknown" else alias.split(",")
        assert entry["id"] == names[0]
        for name in names:
            for written in (name, quote(name, safe="")):
                assert http.get(f"{path}/{written}").json() == entry
        for name in ("gpt-4o", "org", "tiny.gguf/", INFO.path, "x" * 5000):
            reply = http.get(f"{path}/{quote(name)}")
            assert reply.status_code == 404
            assert reply.json()["error"]["type"] == "not_found_error"
            assert "/v1/models" in reply.json()["error"]["message"]


def test_props_are_those_of_both_ancestors() -> None:
    config = ModelConfig(defaults=GenerationParams(sampling=SamplingParams(seed=42)))
    with browser(config=config) as http:
        reply = http.get("/props").json()
    assert reply["total_slots"] == INFO.n_slots
    assert reply["model_path"] == INFO.path
    settings = reply["default_generation_settings"]
    assert settings["n_ctx"] == INFO.n_ctx
    assert settings["seed"] == settings["params"]["seed"] == 42
    assert "<|im_start|>" in reply["chat_template"], "ChatML where the model has none"
    assert (reply["bos_token"], reply["eos_token"], reply["build_info"]) == ("<s>", "</s>", "b1-abc")


def test_the_draft_model_is_told_where_there_is_one() -> None:
    draft = DraftModelInfo(path="/models/small.gguf", ftype="Q4_0", n_params=1000, size=500)
    with browser(FakeTextClient(saying("a"), info=replace(INFO, draft=draft))) as http:
        assert http.get("/props").json()["draft_model"] == asdict(draft)
        assert http.get("/v1/models").json()["data"][0]["meta"]["draft"] == asdict(draft)
    with browser() as http:
        assert "draft_model" not in http.get("/props").json()
        assert "draft" not in http.get("/v1/models").json()["data"][0]["meta"]


def test_slots_know_their_last_task() -> None:
    client = FakeTextClient(saying("a", "b"))
    client.answers[LookAtSlots] = SlotViews([SlotView(0, 0), SlotView(1, 0)])
    with browser(client, ModelConfig(enable_slots=True)) as http:
        before = http.get("/slots").json()
        assert [slot["id"] for slot in before] == [0, 1]
        assert all("params" not in slot and slot["id_task"] == -1 and slot["n_ctx"] == 256 for slot in before)
        http.post("/completion", json={"prompt": "a", "temperature": 0.25})
        after = http.get("/slots").json()
        assert after[0]["params"]["temperature"] == after[0]["temperature"] == 0.25
        assert after[0]["next_token"] == [
            {
                "has_next_token": False, "has_new_line": False, "n_remain": -1, "n_decoded": 0, "stopped_eos": False,
                "stopped_word": False, "stopped_limit": True, "stopping_word": "",
            }
        ]  # fmt: skip
        assert "params" not in after[1]
        busy_view = SlotView(0, 0, "7", n_decoded=3)
        client.answers[LookAtSlots] = SlotViews([busy_view, SlotView(1, 0)])
        busy = http.get("/slots?fail_on_no_slot").json()
        assert (busy[0]["id_task"], busy[0]["state"], busy[0]["next_token"][0]["n_decoded"]) == (7, 4, 3)
        client.answers[LookAtSlots] = SlotViews([busy_view])
        assert http.get("/slots").status_code == 200
        full = http.get("/slots?fail_on_no_slot=0")
        assert (full.status_code, full.json()["detail"]) == (503, "no slot available")


def test_tokenize_passes_on_what_was_asked() -> None:
    client = FakeTextClient()
    with browser(client) as http:
        assert http.post("/tokenize", json={"content": "a"}).json() == {"tokens": [5, 6, 7]}
        client.answers[Spell] = Pieces([b"five", "ß".encode(), b"\xe2"])
        reply = http.post("/tokenize", json={"content": ["a", 5], "add_special": True, "with_pieces": True})
    pairs = [(5, "five"), (6, "ß"), (7, [226])]
    assert reply.json() == {"tokens": [{"id": token, "piece": piece} for token, piece in pairs]}
    assert client.asked == [
        Tokenise(["a"], add_special=False, parse_special=True),
        Tokenise(["a", 5], add_special=True, parse_special=True),
        Spell([5, 6, 7]),
    ]


def test_a_vocabulary_in_words_of_vllm() -> None:
    client = FakeTextClient()
    with browser(client) as http:
        told = {"count": 3, "max_model_len": INFO.n_ctx, "tokens": [5, 6, 7]}
        assert http.post("/tokenize", json={"prompt": "a"}).json() == told
        assert http.post("/tokenize", json={"prompt": "a", "add_special_tokens": False}).json() == told
        for body in ({"prompt": ["a"]}, {"prompt": "a", "add_special_tokens": 1}):
            assert http.post("/tokenize", json=body).status_code == 400
        assert http.post("/tokenize", json={"prompt": "\n" * 5_000_000}).status_code == 413
        info = http.get("/tokenizer_info").json()
    assert client.asked == [
        Tokenise(["a"], add_special=True, parse_special=True),
        Tokenise(["a"], add_special=False, parse_special=True),
    ]
    assert (info["bos_token"], info["eos_token"]) == (INFO.bos_token or None, INFO.eos_token or None)
    assert info["vocab_size"] == INFO.n_vocab
    assert info["chat_template"]


def test_the_worker_is_asked_for_some_pieces_at_a_time() -> None:
    client = FakeTextClient()
    client.answers[Tokenise] = TokenIds.of([5] * (2 * PIECES + 1))

    async def ask(question: Any) -> Any:
        if isinstance(question, Spell):
            client.answers[Spell] = Pieces([b"x"] * len(question.tokens))
        return await FakeTextClient.ask(client, question)

    client.ask = ask  # type: ignore[method-assign]
    with browser(client) as http:
        reply = http.post("/tokenize", json={"content": "a", "with_pieces": True})
    assert reply.json() == {"tokens": [{"id": 5, "piece": "x"}] * (2 * PIECES + 1)}
    assert [len(one.tokens) for one in client.asked if isinstance(one, Spell)] == [PIECES, PIECES, 1]
    client.answers[Tokenise] = TokenIds.of([])
    with browser(client) as http:
        assert http.post("/tokenize", json={"content": "", "with_pieces": True}).json() == {"tokens": []}


@pytest.mark.parametrize("n_tokens", [0, PIECES, PIECES + 1, 2 * PIECES + 1])
def test_many_tokens_are_told_as_few_are(n_tokens: int) -> None:
    client = FakeTextClient()
    ids = list(range(n_tokens))
    client.answers[Tokenise] = TokenIds.of(ids)
    with browser(client) as http:
        assert http.post("/tokenize", json={"content": "a"}).json() == {"tokens": ids}
        told = {"count": n_tokens, "max_model_len": INFO.n_ctx, "tokens": ids}
        assert http.post("/tokenize", json={"prompt": "a"}).json() == told


MANY_VALUES: list[tuple[str, Any, str, dict[str, Any]]] = [
    ("/completion", completions, "parse_prompts", {"prompt": [[5] * 100] * 100}),
    ("/v1/completions", openai_completions, "parse_prompts", {"prompt": [5] * (MANY + 1)}),
    ("/v1/embeddings", embeddings, "parse_inputs", {"input": ["a"] * (MANY + 1)}),
    ("/embedding", embeddings, "parse_inputs", {"content": [[5] * 50] * 100}),
    ("/tokenize", tokens, "_parse_content", {"content": [5] * (MANY + 1)}),
    ("/detokenize", tokens, "_parse_tokens", {"tokens": [5] * (MANY + 1)}),
]


@pytest.mark.parametrize(("path", "module", "name", "body"), MANY_VALUES, ids=lambda value: str(value)[:16])
def test_many_values_are_looked_at_beside_the_event_loop(
    path: str, module: Any, name: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[bool] = []

    def looked(*_: object) -> Any:
        threads.append(is_the_loops())
        raise InvalidRequest("enough was seen")

    def is_the_loops() -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True

    monkeypatch.setattr(module, name, looked)
    with browser(config=ModelConfig(enable_embeddings=True)) as http:
        [(field, value)] = body.items()
        assert http.post(path, json=body).status_code == http.post(path, json={field: value[:2]}).status_code == 400
    assert threads == [False, True]


@pytest.mark.parametrize(
    "body",
    [{}, {"content": None}, {"content": 5}, {"content": [1.5]}, {"content": [-1]}, {"content": [1000]},
     {"content": [True]}, {"content": "a", "add_special": 1}, {"content": [["a"]]}],
)  # fmt: skip
def test_tokenize_refuses(body: dict[str, Any]) -> None:
    with browser() as http:
        assert http.post("/tokenize", json=body).status_code == 400


def test_texts_too_long_to_tokenise_are_refused() -> None:
    with browser() as http:
        assert http.post("/tokenize", json={"content": "\n" * 5_000_000}).status_code == 413


def test_detokenize() -> None:
    client = FakeTextClient()
    with browser(client) as http:
        assert http.post("/detokenize", json={"tokens": [5, 6]}).json() == {"content": "five six", "prompt": "five six"}
        for body in ({}, {"tokens": "a"}, {"tokens": [1.0]}, {"tokens": [-1]}, {"tokens": [1000]}, {"tokens": [True]}):
            assert http.post("/detokenize", json=body).status_code == 400
    assert client.asked == [Detokenise([5, 6])]


def test_the_prompt_of_a_chat_can_be_asked_for() -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    with browser() as http:
        prompt = http.post("/apply-template", json=body).json()["prompt"]
        assert prompt == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
        assert http.post("/v1/chat/completions/input_tokens", json=body).json()["input_tokens"] == 3


@pytest.mark.parametrize(
    "body",
    [
        {}, {"messages": "a"}, {"messages": [5]}, {"messages": [{}]}, {"messages": []},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function", "function": {"name": ""}}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"messages": [{"role": "user", "content": "a"}], "functions": {"name": "f"}},
    ],
    ids=range(9),
)  # fmt: skip
def test_chats_that_cannot_be_are_refused(body: dict[str, Any]) -> None:
    with browser() as http:
        reply = http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400
    assert reply.json()["detail"]
