"""What llama-server's own tests ask of a server, with this model's numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.server_process import ServerProcess
from tests.e2e.shapes import LAST_OF_PROMPT

PROMPT = "I believe the meaning of life is"
GREEDY = {"prompt": PROMPT, "n_predict": 8, "temperature": 0, "cache_prompt": False}
BOOK = [{"role": "system", "content": "Book"}, {"role": "user", "content": "What is the best book"}]


KEY = "k-1"
TEMPLATE = "This is not a chat template, it is"


@pytest.fixture(scope="module")
def server(serve: Callable[..., ServerProcess], tmp_path_factory: pytest.TempPathFactory) -> ServerProcess:
    words = ("-c", "512", "-np", "2", "-n", "64", "-s", "42", "-b", "32")
    return serve(*words, "--slot-save-path", str(tmp_path_factory.mktemp("slots")))


@pytest.fixture(scope="module")
def locked(serve: Callable[..., ServerProcess]) -> ServerProcess:
    """With a key, pages that may call, and a template of its own."""
    words = ("-c", "128", "--no-warmup", "--chat-template", TEMPLATE)
    return serve(*words, "--api-key", KEY, "--cors-origins", "localhost")


def n_tokens(server: ServerProcess, text: str) -> int:
    return len(server.ok("/tokenize", {"content": text, "add_special": True})["tokens"])


def chat(server: ServerProcess, messages: Any, **fields: Any) -> Any:
    return server.ok("/v1/chat/completions", {"messages": messages, "max_tokens": 8, "temperature": 0, **fields})


# completion


def test_limits_of_request_and_server(server: ServerProcess) -> None:
    eight = server.ok("/completion", {**GREEDY, "ignore_eos": True})
    assert (eight["timings"]["prompt_n"], eight["timings"]["predicted_n"]) == (n_tokens(server, PROMPT), 8)
    assert (eight["truncated"], eight["tokens"]) == (False, [])
    most = server.ok("/completion", {**GREEDY, "ignore_eos": True, "n_predict": 1000})
    assert most["timings"]["predicted_n"] == 64
    assert most["generation_settings"]["n_predict"] == 64
    none = server.ok("/completion", {**GREEDY, "n_predict": 0})
    assert (none["tokens_predicted"], none["content"]) == (0, "")


def test_a_stream_says_its_settings_at_the_end(server: ServerProcess) -> None:
    body = {**GREEDY, "ignore_eos": True}
    *partial, final = server.stream("/completion", body)
    assert all(chunk["tokens"] for chunk in partial)
    assert (final["stop_type"], final["generation_settings"]["seed"]) == ("limit", 42)
    assert {"adaptive_target", "adaptive_decay"} <= final["generation_settings"].keys()
    assert "".join(chunk["content"] for chunk in partial) == server.ok("/completion", body)["content"]


def test_neighbouring_seeds_say_different_things(server: ServerProcess) -> None:
    body = {**GREEDY, "temperature": 1.0, "n_predict": 16}
    texts = [server.ok("/completion", {**body, "seed": seed})["content"] for seed in range(4)]
    assert all(a != b for a, b in itertools.pairwise(texts))
    assert server.ok("/completion", {**body, "seed": 3})["content"] == texts[3]


def test_greedy_texts_do_not_depend_on_batch_or_cache(
    server: ServerProcess, serve: Callable[..., ServerProcess]
) -> None:
    long = {**GREEDY, "prompt": PROMPT + " to be, and to be is to see, and to see is to know, and to know is" * 3}
    texts = {server.ok("/completion", {**long, "cache_prompt": cached})["content"] for cached in (False, True, True)}
    texts.add(serve("-c", "512", "-np", "2", "--no-warmup").ok("/completion", long)["content"])
    assert len(texts) == 1


def test_forms_of_a_prompt(server: ServerProcess) -> None:
    ids = server.ok("/tokenize", {"content": PROMPT})["tokens"]
    said = server.ok("/completion", GREEDY)["content"]
    for prompt in (ids, {"prompt_string": PROMPT}, [PROMPT, *[]], [ids[0], *ids[1:]], ["I believe the", *ids[3:]]):
        answer = server.ok("/completion", {**GREEDY, "prompt": prompt})
        contents = [one["content"] for one in answer] if isinstance(answer, list) else [answer["content"]]
        assert contents == [said], prompt
    several = server.ok(
        "/completion", {**GREEDY, "prompt": [PROMPT, ids, {"prompt_string": PROMPT}, ["I believe the", *ids[3:]]]}
    )
    assert [one["content"] for one in several] == [said] * 4
    with_image = {"prompt_string": PROMPT, "multimodal_data": ["aGk="]}
    assert server.post("/completion", {**GREEDY, "prompt": with_image}).status_code == 400
    assert server.post("/completion", {**GREEDY, "prompt": []}).status_code == 400


def test_a_prompt_of_no_tokens(server: ServerProcess) -> None:
    """This model has no BOS: there is nothing to begin with, which is an answer or a clear refusal, never a crash."""
    response = server.post("/completion", {**GREEDY, "prompt": ""})
    assert response.status_code in (200, 400)
    if response.status_code == 400:
        assert "prompt" in response.json()["error"]["message"]


def test_response_fields(server: ServerProcess) -> None:
    fields = ["content", "generation_settings/n_predict", "prompt", "no/such", "timings/nothing"]
    answer = server.ok("/completion", {**GREEDY, "response_fields": fields})
    assert answer.keys() == {"content", "generation_settings/n_predict", "prompt"}
    assert (answer["prompt"], answer["generation_settings/n_predict"]) == (PROMPT, 8)
    assert "timings" in server.ok("/completion", {**GREEDY, "response_fields": []})


def test_more_requests_than_slots(server: ServerProcess) -> None:
    body = {**GREEDY, "ignore_eos": True, "n_predict": 24}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: server.ok("/completion", body), range(6)))
    assert [answer["tokens_predicted"] for answer in answers] == [24] * 6
    assert {answer["id_slot"] for answer in answers} == {0, 1}


def test_a_client_that_runs_out_of_time(server: ServerProcess) -> None:
    body = {**GREEDY, "ignore_eos": True, "n_predict": 64, "speculative.n_max": 0}  # drafts of an answer take 0.1 s
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/completion", json=body, timeout=0.1)
    server.wait_idle()


def test_a_pool_too_small_for_all(model: Path, tmp_path: Path) -> None:
    """Who does not fit any more waits for the others, and has all his tokens in the end."""
    arguments = ("-c", "256", "-np", "4", "--kv-unified", "--no-context-shift", "--slots")
    with ServerProcess(tmp_path / "log", "-m", str(model), *arguments) as server:
        body = {"prompt": "word " * 40, "n_predict": 60, "ignore_eos": True, "temperature": 0}
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda i: server.ok("/completion", {**body, "seed": i}), range(4)))
        assert [answer["tokens_predicted"] for answer in answers] == [60] * 4
        assert server.ok("/completion", {**body, "n_predict": 200})["tokens_predicted"] == 200, "nearly all for one"
        server.wait_idle()
        assert server.ok("/completion", {**body, "n_predict": 4})["tokens_predicted"] == 4
        assert "KV ledger" not in server.log


def test_counts_stay_true_while_the_cache_churns(server: ServerProcess) -> None:
    for i in range(8):
        prompt = f"{PROMPT} {'to live ' * (i % 4)}and number {i % 3}"
        answer = server.ok("/completion", {**GREEDY, "prompt": prompt, "cache_prompt": True, "ignore_eos": True})
        timings = answer["timings"]
        assert timings["cache_n"] + timings["prompt_n"] == n_tokens(server, prompt)
        assert timings["predicted_n"] == 8


@pytest.mark.parametrize(
    "entries",
    [
        lambda token, text: [[token, -100]],
        lambda token, text: [[text, -100]],
        lambda token, text: {str(token): -100},
        lambda token, text: {text: -100},
        lambda token, text: [[token, False]],
    ],
)
def test_a_ban_in_each_form(server: ServerProcess, entries: Callable[[int, str], Any]) -> None:
    body = {**GREEDY, "prompt": "This is", "return_tokens": True}
    first = server.ok("/completion", body)["tokens"][0]
    text = server.ok("/detokenize", {"tokens": [first]})["content"]
    banned = server.ok("/completion", {**body, "logit_bias": entries(first, text)})
    assert first not in banned["tokens"]


# chat


def test_prompt_tokens_are_those_of_the_template(server: ServerProcess) -> None:
    for messages in (
        BOOK,
        [{"role": "user", "content": [{"type": "text", "text": "Hey"}, {"type": "text", "text": "you"}]}],
    ):
        prompt = server.ok("/apply-template", {"messages": messages})["prompt"]
        answer = chat(server, messages)
        assert answer["usage"]["prompt_tokens"] == n_tokens(server, prompt)
        assert answer["choices"][0]["finish_reason"] in ("length", "stop")


def test_a_template_that_ignores_the_messages(locked: ServerProcess) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(locked.http.headers, "X-Api-Key", KEY)
        assert chat(locked, BOOK)["usage"]["prompt_tokens"] == n_tokens(locked, TEMPLATE)


def test_cached_tokens_of_one_slot(server: ServerProcess) -> None:
    """Nothing; all but the end; then what the third and the first have in common."""
    server.wait_idle()
    other = [BOOK[0], {"role": "user", "content": "What is the worst book"}]
    counts, prompts = [], []
    for messages in (BOOK, BOOK, other):
        usage = chat(server, messages, id_slot=0, cache_prompt=len(counts) > 0)["usage"]
        counts.append(usage["prompt_tokens_details"]["cached_tokens"])
        prompts.append(
            server.ok("/tokenize", {"content": server.ok("/apply-template", {"messages": messages})["prompt"]})[
                "tokens"
            ]
        )
    n_common = next(i for i, (a, b) in enumerate(zip(prompts[0], prompts[2], strict=False)) if a != b)
    assert (counts[0], counts[2]) == (0, n_common)
    assert len(prompts[0]) - counts[1] in LAST_OF_PROMPT


def test_an_answer_begun_is_continued(server: ServerProcess) -> None:
    begun = [*BOOK, {"role": "assistant", "content": "The best book"}]
    prompt = server.ok("/apply-template", {"messages": begun})["prompt"]
    assert prompt.endswith("<|im_start|>assistant\nThe best book")
    parts = [{"type": "text", "text": "The best"}, {"type": "text", "text": "book"}]
    in_parts = server.ok("/apply-template", {"messages": [*BOOK, {"role": "assistant", "content": parts}]})["prompt"]
    assert in_parts.endswith("assistant\nThe best\n\nbook")
    same = {"messages": begun, "continue_final_message": True, "add_generation_prompt": False}
    assert server.ok("/apply-template", same)["prompt"] == prompt
    both = {"messages": begun, "continue_final_message": True, "add_generation_prompt": True}
    assert server.post("/apply-template", both).status_code == 400


def test_a_chat_too_long_is_refused_before_it_streams(server: ServerProcess) -> None:
    messages = [{"role": "user", "content": "word " * 400}]
    for stream in (False, True):
        response = server.post("/v1/chat/completions", {"messages": messages, "stream": stream})
        error = response.json()["error"]
        assert (response.status_code, error["type"], error["n_ctx"]) == (400, "exceed_context_size_error", 256)
        assert error["n_prompt_tokens"] > 400


def test_two_choices_in_one_slot_first(server: ServerProcess) -> None:
    assert len(chat(server, BOOK, n=2, id_slot=0)["choices"]) == 2


def test_timings_in_a_stream(server: ServerProcess) -> None:
    body = {"messages": BOOK, "max_tokens": 10, "timings_per_token": True, "stream_options": {"include_usage": True}}
    first, *rest = server.stream("/v1/chat/completions", body)
    assert "timings" not in first
    assert all(event["timings"]["predicted_n"] <= 10 for event in rest if "timings" in event)
    assert any(event.get("timings", {}).get("predicted_per_second") for event in rest)
    assert rest[-1]["choices"] == []


def test_reserved_combinations(server: ServerProcess) -> None:
    body = {"messages": BOOK, "max_tokens": 2}
    for fields in (
        {"response_format": {"type": "sound"}},
        {"response_format": {"type": "json_object", "schema": 123}},
        {"response_format": {"type": "json_object", "schema": {"type": 123}}},
        {"response_format": {"type": "json_object", "schema": {"type": "hiccup"}}},
        {"grammar": "root ::= ("},
        {"top_logprobs": 3},
    ):
        assert server.post("/v1/chat/completions", {**body, **fields}).status_code == 400, fields


# the rest


def test_ignore_eos_shows_its_bans(server: ServerProcess) -> None:
    banned = server.ok("/completion", {**GREEDY, "ignore_eos": True})["generation_settings"]["logit_bias"]
    assert banned
    assert all(entry["bias"] is None for entry in banned)
    assert server.ok("/completion", GREEDY)["generation_settings"]["logit_bias"] == []


def test_rates_leave_the_first_token_out(server: ServerProcess) -> None:
    one = server.ok("/completion", {**GREEDY, "n_predict": 1})["timings"]
    assert (one["predicted_per_second"], one["predicted_per_token_ms"]) == (0.0, 0.0)
    many = server.ok("/completion", {**GREEDY, "n_predict": 16, "ignore_eos": True})["timings"]
    assert many["predicted_per_second"] == pytest.approx(15 * 1000 / many["predicted_ms"], abs=1e-6)
    assert many["predicted_per_token_ms"] == pytest.approx(many["predicted_ms"] / 15)
    for timings in (one, many):
        assert all(value is not None and value >= 0 and math.isfinite(value) for value in timings.values())
        assert timings["prompt_ms"] > 0


def test_a_slot_saved_and_restored_goes_on(server: ServerProcess) -> None:
    head, first, second = "What is the capital of France? It is ", "Paris, I think", "Lyon, is it not"
    body = {"temperature": 0, "ignore_eos": True, "cache_prompt": True, "n_predict": 16}
    n_first, n_second = n_tokens(server, head + first), n_tokens(server, head + second)
    assert server.ok("/completion", {**body, "prompt": head + first, "id_slot": 1})["timings"]["prompt_n"] == n_first
    assert server.ok("/slots/1?action=save", {"filename": "slot1.bin"})["n_saved"] == n_first + 16 - 1
    changed = server.ok("/completion", {**body, "prompt": head + second, "id_slot": 1})["timings"]
    assert 0 < changed["prompt_n"] < n_second
    assert server.ok("/slots/1?action=erase", {})["n_erased"] > 0  # else slot 0 would take it all from there
    assert server.ok("/slots/0?action=restore", {"filename": "slot1.bin"})["n_restored"] == n_first + 15
    again = server.ok("/completion", {**body, "prompt": head + second, "id_slot": 0})["timings"]
    assert again["prompt_n"] == changed["prompt_n"]
    same = server.ok("/completion", {**body, "prompt": head + second, "id_slot": 0})["timings"]
    assert same["prompt_n"] in LAST_OF_PROMPT
    erased = server.ok("/completion", {**body, "prompt": head + first, "id_slot": 1, "cache_prompt": False})
    assert erased["timings"]["prompt_n"] == n_first


def test_a_key_for_every_route_but_health(locked: ServerProcess) -> None:
    assert locked.http.get("/v1/health").status_code == 200
    for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": KEY}, {"X-Api-Key": ""}):
        refused = locked.http.post("/completion", json={"prompt": "x"}, headers=headers)
        assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-Api-Key": KEY}):
        body = {"prompt": "x", "n_predict": 1}
        assert locked.http.post("/completion", json=body, headers=headers).status_code == 200
    for origin in ("http://localhost:3000", "http://127.0.0.1", "http://[::1]:9"):
        reply = locked.http.options("/completion", headers={"Origin": origin})
        assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, origin)
    stranger = locked.http.options("/completion", headers={"Origin": "http://localhost.evil.example"})
    assert "access-control-allow-origin" not in stranger.headers
