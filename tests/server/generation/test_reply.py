"""Shapes of whole and streamed replies, and what goes where in them."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from openai import AsyncOpenAI

from llamabox.server.hosted.config import ModelConfig
from tests.server.fake_client import FakeTextClient, saying
from tests.server.harness import events, running

WORDS = ("Hel", "lo ", "wörld 🌍", '"q"\n', "\u2028\u2029\x85", "你好")
TEXT = "".join(WORDS)
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}

FINAL_KEYS = {
    "index", "content", "tokens", "id_slot", "stop", "model", "tokens_predicted", "tokens_evaluated", "tokens_cached",
    "generation_settings", "prompt", "has_new_line", "truncated", "stop_type", "stopped_eos", "stopped_word",
    "stopped_limit", "stopping_word", "timings",
}  # fmt: skip
PARTIAL_KEYS = {
    "index", "content", "tokens", "id_slot", "stop", "model", "tokens_predicted", "tokens_evaluated",
}  # fmt: skip
TIMING_KEYS = {
    "cache_n", "prompt_n", "prompt_ms", "prompt_per_token_ms", "prompt_per_second",
    "predicted_n", "predicted_ms", "predicted_per_token_ms", "predicted_per_second",
}  # fmt: skip
SETTINGS_KEYS = {
    "n_ctx", "n_predict", "model", "seed", "seed_cur", "temperature", "dynatemp_range", "dynatemp_exponent", "top_k",
    "top_p", "min_p", "xtc_probability", "xtc_threshold", "typical_p", "repeat_last_n", "repeat_penalty",
    "presence_penalty", "frequency_penalty", "mirostat", "mirostat_tau", "mirostat_eta", "penalize_nl", "stop",
    "max_tokens", "n_keep", "n_discard", "ignore_eos", "stream", "n_probs", "min_keep", "grammar", "samplers",
    "top_n_sigma", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers",
    "adaptive_target", "adaptive_decay", "logit_bias", "grammar_lazy", "grammar_triggers", "preserved_tokens",
    "chat_format", "reasoning_format", "reasoning_in_content", "generation_prompt", "speculative.types",
    "speculative.n_max", "speculative.n_min", "speculative.p_min",
    "timings_per_token", "post_sampling_probs", "backend_sampling", "lora", "min_tokens", "stop_token_ids",
}  # fmt: skip


def post(
    path: str, body: dict[str, Any], client: FakeTextClient | None = None, config: ModelConfig | None = None
) -> Any:
    """The parsed reply: an object, or the list of a stream's events."""

    async def talk() -> Any:
        async with running(client or FakeTextClient(saying(*WORDS)), config) as server:
            reply = await server.http.post(path, json=body)
            assert reply.status_code == 200, reply.text
            if body.get("stream"):
                assert reply.headers["content-type"] == "text/event-stream"
                return events(reply.text)
            assert reply.headers["content-type"] == "application/json; charset=utf-8"
            return reply.json()

    return asyncio.run(talk())


def test_native_final_object_has_every_key_of_both_ancestors() -> None:
    reply = post("/completion", {"prompt": "Hi"})
    assert set(reply) == FINAL_KEYS
    assert set(reply["timings"]) == TIMING_KEYS
    assert set(reply["generation_settings"]) == SETTINGS_KEYS
    assert reply["content"] == TEXT
    assert reply["prompt"] == "<s>Hi"
    assert reply["tokens"] == []
    assert reply["stop_type"] == "limit"
    assert (reply["stopped_limit"], reply["stopped_eos"], reply["stopped_word"]) == (True, False, False)
    assert reply["model"] == "tiny.gguf"
    assert reply["tokens_evaluated"] == 8
    assert reply["timings"]["predicted_per_second"] == pytest.approx(100.0)
    assert reply["generation_settings"]["seed"] == 0xFFFFFFFF
    assert reply["generation_settings"]["seed_cur"] == 42


def test_native_stream_says_what_the_plain_reply_says_and_has_no_done() -> None:
    chunks = post("/completion", {"prompt": "Hi", "stream": True})
    assert all(set(chunk) == PARTIAL_KEYS for chunk in chunks[:-1])
    assert all(chunk["tokens"] for chunk in chunks[:-1])
    assert [chunk["tokens_predicted"] for chunk in chunks[:-1]] == list(range(1, len(WORDS) + 1))
    assert "".join(chunk["content"] for chunk in chunks) == TEXT
    assert set(chunks[-1]) == FINAL_KEYS
    assert (chunks[-1]["content"], chunks[-1]["tokens"], chunks[-1]["stop"]) == ("", [], True)


def test_native_options_that_shape_the_reply() -> None:
    assert post("/completion", {"prompt": "Hi", "return_tokens": True})["tokens"] == list(range(101, 107))
    fields = ["content", "generation_settings/n_predict", "prompt", "no/such"]
    reply = post("/completion", {"prompt": "Hi", "n_predict": 7, "response_fields": fields})
    assert reply == {"content": TEXT, "generation_settings/n_predict": 7, "prompt": "<s>Hi"}
    assert set(post("/completion", {"prompt": "Hi", "response_fields": []})) == FINAL_KEYS
    chunks = post("/completion", {"prompt": "Hi", "stream": True, "timings_per_token": True})
    assert all(set(chunk["timings"]) == TIMING_KEYS for chunk in chunks)


def test_native_lists_of_prompts_give_lists() -> None:
    reply = post("/completion", {"prompt": ["a", [5, 6], {"prompt_string": "c"}]})
    assert [one["index"] for one in reply] == [0, 1, 2]
    assert [one["prompt"] for one in reply] == ["<s>a", "five six", "<s>c"]
    assert [one["index"] for one in post("/completion", {"prompt": ["a"]})] == [0]
    twice = post("/completion", {"prompt": "a", "n": 2})
    assert [one["content"] for one in twice] == [TEXT, "1" + TEXT]


def test_native_stream_of_several_prompts_interleaves_by_index() -> None:
    chunks = post("/completion", {"prompt": ["a", "b"], "n": 2, "stream": True})
    texts = {index: "".join(one["content"] for one in chunks if one["index"] == index) for index in range(4)}
    assert texts == {0: TEXT, 1: "1" + TEXT, 2: TEXT, 3: "1" + TEXT}
    assert sum(one["stop"] for one in chunks) == 4


def test_chat_reply() -> None:
    reply = post("/v1/chat/completions", CHAT, FakeTextClient(saying(*WORDS, n_cached=3)))
    assert re.fullmatch(r"chatcmpl-[A-Za-z0-9]{32}", reply["id"])
    assert reply["object"] == "chat.completion"
    assert reply["system_fingerprint"] == "b1-abc"
    assert reply["choices"] == [
        {
            "index": 0,
            "finish_reason": "length",
            "logprobs": None,
            "message": {"role": "assistant", "content": TEXT},
        }
    ]
    usage = reply["usage"]
    assert usage["prompt_tokens"] == 8
    assert usage["completion_tokens"] == len(WORDS)
    assert usage["total_tokens"] == 8 + len(WORDS)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 3}
    assert usage["time_to_first_token_ms"] == 20.0
    assert usage["time_per_output_token_ms"] == pytest.approx(10.0)
    assert usage["tokens_per_second"] == pytest.approx(100.0)
    assert set(reply["timings"]) == TIMING_KEYS
    assert "__verbose" not in reply


def test_completion_reply() -> None:
    reply = post("/v1/completions", {"prompt": "Hi", "model": "mine"})
    assert re.fullmatch(r"cmpl-[A-Za-z0-9]{32}", reply["id"])
    assert (reply["object"], reply["model"]) == ("text_completion", "mine")
    assert reply["choices"] == [{"index": 0, "finish_reason": "length", "logprobs": None, "text": TEXT}]


def test_model_is_the_requests_else_the_alias_else_the_path() -> None:
    assert post("/v1/completions", {"prompt": "a"})["model"] == "tiny.gguf"
    named = ModelConfig(alias="tiny")
    assert post("/v1/completions", {"prompt": "a"}, config=named)["model"] == "tiny"
    assert post("/v1/completions", {"prompt": "a", "model": "x"}, config=named)["model"] == "x"


def test_choices_of_several_prompts_are_numbered_prompt_times_n() -> None:
    reply = post("/v1/completions", {"prompt": ["a", "b"], "n": 2})
    assert [(one["index"], one["text"]) for one in reply["choices"]] == [
        (0, TEXT), (1, "1" + TEXT), (2, TEXT), (3, "1" + TEXT),
    ]  # fmt: skip
    assert reply["usage"]["prompt_tokens"] == 16, "a prompt counts once, however many sequences share it"
    assert reply["usage"]["completion_tokens"] == 4 * len(WORDS)


def test_verbose_shows_the_prompt() -> None:
    reply = post("/v1/chat/completions", {**CHAT, "verbose": True})
    assert "Hi" in reply["__verbose"]["prompt"]
    chunks = post("/v1/completions", {"prompt": "Hi", "verbose": True, "stream": True})
    assert chunks[-2]["__verbose"]["prompt"] == "<s>Hi"


@pytest.mark.parametrize(("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/completions", {"prompt": "Hi"})])
@pytest.mark.parametrize("n", [1, 2])
def test_stream_concatenates_to_the_plain_reply(path: str, body: dict[str, Any], n: int) -> None:
    plain = post(path, {**body, "n": n})
    chunks = post(path, {**body, "n": n, "stream": True})
    assert chunks.count("[DONE]") == 1
    assert chunks[-1] == "[DONE]"
    for choice in plain["choices"]:
        mine = [one["choices"][0] for one in chunks[:-1] if one["choices"][0]["index"] == choice["index"]]
        text = "".join(one.get("text", one.get("delta", {}).get("content")) or "" for one in mine)
        assert text == choice.get("text", choice.get("message", {}).get("content"))
        assert [one["finish_reason"] for one in mine] == [None] * (len(mine) - 1) + [choice["finish_reason"]]
    assert len({(one["id"], one["created"], one["model"], one["object"]) for one in chunks[:-1]}) == 1


def test_chat_stream_opens_with_the_role_and_ends_with_an_empty_delta() -> None:
    chunks = post("/v1/chat/completions", {**CHAT, "stream": True, "timings_per_token": True})
    deltas = [one["choices"][0]["delta"] for one in chunks[:-1]]
    assert deltas[0] == {"role": "assistant", "content": None}
    assert all(set(delta) == {"content"} for delta in deltas[1:-1])
    assert deltas[-1] == {}
    assert "timings" not in chunks[0]
    assert set(chunks[1]["timings"]) == TIMING_KEYS
    assert {one["object"] for one in chunks[:-1]} == {"chat.completion.chunk"}


@pytest.mark.parametrize(("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/completions", {"prompt": "Hi"})])
class TestUsageInStreams:
    """docs/api.md, Usage."""

    def test_asked_for_is_an_extra_last_chunk(self, path: str, body: dict[str, Any]) -> None:
        *chunks, last, done = post(path, {**body, "stream": True, "stream_options": {"include_usage": True}})
        assert done == "[DONE]"
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == len(WORDS)
        assert all(chunk["usage"] is None for chunk in chunks)

    def test_unmentioned_rides_on_the_chunk_with_the_finish_reason(self, path: str, body: dict[str, Any]) -> None:
        for options in ({}, {"stream_options": None}):
            *chunks, last, done = post(path, {**body, "stream": True, **options})
            assert done == "[DONE]"
            assert last["choices"][0]["finish_reason"] == "length"
            assert last["usage"]["completion_tokens"] == len(WORDS)
            assert all("usage" not in chunk for chunk in chunks)

    def test_refused_is_nowhere(self, path: str, body: dict[str, Any]) -> None:
        chunks = post(path, {**body, "stream": True, "stream_options": {"include_usage": False}})
        assert all("usage" not in chunk for chunk in chunks[:-1])

    def test_of_several_choices_rides_once(self, path: str, body: dict[str, Any]) -> None:
        chunks = post(path, {**body, "stream": True, "n": 2})
        assert [one["usage"]["completion_tokens"] for one in chunks[:-1] if "usage" in one] == [2 * len(WORDS)]


def test_no_line_of_a_stream_breaks_where_some_client_would_break_it() -> None:
    async def talk() -> str:
        async with running(FakeTextClient(saying(*WORDS))) as server:
            return (await server.http.post("/v1/completions", json={"prompt": "a", "stream": True})).text

    text = asyncio.run(talk())
    assert text.splitlines() == text.split("\n")[:-1]


def test_the_openai_client_reads_it_all() -> None:
    async def talk() -> None:
        async with (
            running(FakeTextClient(saying(*WORDS))) as server,
            AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none") as client,
        ):
            plain = await client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": "Hi"}],
                n=2,
                seed=7,
                stop=["x"],
                logit_bias={"5": -100},
            )
            assert [one.message.content for one in plain.choices] == [TEXT, "1" + TEXT]
            assert server.client.submits[-1].params.sampling.seed == 7
            assert server.client.submits[-1].params.stop == ("x",)
            assert server.client.submits[-1].params.sampling.logit_bias == ((5, -100.0),)
            stream = await client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": "Hi"}],
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = [chunk async for chunk in stream]
            assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == TEXT
            assert chunks[-1].usage is not None
            assert chunks[-1].usage.completion_tokens == len(WORDS)
            legacy = await client.completions.create(model="m", prompt="Hi", stream=True)
            assert "".join([chunk.choices[0].text async for chunk in legacy]) == TEXT
            assert [model.id async for model in client.models.list()] == ["tiny.gguf"]

    asyncio.run(talk())
