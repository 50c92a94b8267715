"""Log-probabilities of real answers, against the log-softmax of the same tokens evaluated by the bindings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from llamabox.server.fields.logprobs import MAX_PROBS
from tests.e2e.near_tie import Oracle
from tests.e2e.server_process import ServerProcess

PROMPT = "I believe the meaning of life is"
MESSAGES = [{"role": "user", "content": "Write an emoji of a cat, then the word cat."}]
N_CTX = 512
TOLERANCE = 0.02


@pytest.fixture(scope="module")
def server(serve: Callable[..., ServerProcess]) -> ServerProcess:
    return serve("-c", str(2 * N_CTX), "-np", "2")


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def log_softmaxes(path: Path, prompt: str, generated: list[int]) -> list[NDArray[np.float64]]:
    """One row for each generated token: what was to be said of it."""
    with Oracle(path, N_CTX) as oracle:
        tokens = oracle.tokenize(prompt)
        found = []
        for row in oracle.logits(tokens[:-1], tokens[-1:] + generated[:-1]):
            logits = row.astype(np.float64)
            shifted = logits - logits.max()
            found.append(shifted - np.log(np.exp(shifted).sum()))
        return found


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_they_are_those_of_the_raw_logits(server: ServerProcess, model: Path, temperature: float) -> None:
    """Whatever the sampler made of them."""
    body = {"prompt": PROMPT, "n_predict": 8, "n_probs": 10, "temperature": temperature, "seed": 3, "top_k": 5}
    found = server.post("/completion", body).json()["completion_probabilities"]
    assert len(found) == 8
    for entry, row in zip(found, log_softmaxes(model, PROMPT, [entry["id"] for entry in found]), strict=True):
        assert entry["logprob"] == pytest.approx(row[entry["id"]], abs=TOLERANCE)
        values = [top["logprob"] for top in entry["top_logprobs"]]
        assert len(values) == 10
        assert values == sorted(values, reverse=True)
        assert values == pytest.approx(sorted(row, reverse=True)[:10], abs=TOLERANCE)
        if temperature == 0:
            assert entry["top_logprobs"][0] == {key: entry[key] for key in ("id", "token", "bytes", "logprob")}


def test_as_many_as_may_be(server: ServerProcess) -> None:
    reply = server.post("/completion", {"prompt": PROMPT, "n_predict": 1, "n_probs": MAX_PROBS}).json()
    (entry,) = reply["completion_probabilities"]
    assert len(entry["top_logprobs"]) == reply["generation_settings"]["n_probs"] == MAX_PROBS
    assert 0.5 < sum(np.exp(top["logprob"]) for top in entry["top_logprobs"]) < 1.0
    refused = server.post("/completion", {"prompt": PROMPT, "n_predict": 1, "n_probs": MAX_PROBS + 1})
    assert refused.status_code == 400
    assert all(word in refused.json()["error"]["message"] for word in ("n_probs", str(MAX_PROBS)))


def test_chat_streamed_and_plain(client: openai.OpenAI) -> None:
    asked = {
        "model": "m",
        "messages": MESSAGES,
        "max_tokens": 24,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 3,
        "extra_body": {"cache_prompt": False},
    }
    plain = client.chat.completions.create(**asked).choices[0]
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True) if chunk.choices]
    streamed = [entry for choice in chunks if choice.logprobs for entry in choice.logprobs.content]
    assert streamed == plain.logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in streamed).decode() == plain.message.content
    assert all(entry.top_logprobs[0].token == entry.token and len(entry.top_logprobs) == 3 for entry in streamed)


def test_legacy_arrays(client: openai.OpenAI) -> None:
    choice = client.completions.create(model="m", prompt=PROMPT, max_tokens=8, temperature=0, logprobs=5).choices[0]
    found = choice.logprobs
    assert "".join(found.tokens) == choice.text
    for token, logprob, top, offset in zip(
        found.tokens, found.token_logprobs, found.top_logprobs, found.text_offset, strict=True
    ):
        assert top[token] == logprob == max(top.values())
        assert choice.text[offset:].startswith(token)


def test_a_stop_word_takes_its_entries_along(client: openai.OpenAI, server: ServerProcess) -> None:
    whole = server.post("/completion", {"prompt": PROMPT, "n_predict": 12, "temperature": 0}).json()["content"]
    word = whole[len(whole) // 2 :][:6]
    choice = client.completions.create(
        model="m", prompt=PROMPT, max_tokens=12, temperature=0, logprobs=1, stop=[word]
    ).choices[0]
    assert choice.finish_reason == "stop"
    assert all(offset < len(choice.text) for offset in choice.logprobs.text_offset)
    assert "".join(choice.logprobs.tokens).startswith(choice.text)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_probabilities_after_the_samplers(server: ServerProcess, temperature: float) -> None:
    body = {"prompt": PROMPT, "n_predict": 8, "n_probs": 10, "temperature": temperature, "seed": 3}
    found = server.ok("/completion", {**body, "post_sampling_probs": True})["completion_probabilities"]
    raw = server.ok("/completion", {**body})["completion_probabilities"]
    assert [entry["id"] for entry in found] == [entry["id"] for entry in raw]
    for entry in found:
        values = [top["prob"] for top in entry["top_probs"]]
        assert 0 < entry["prob"] <= 1
        assert all(value > 0 for value in values)
        assert values == sorted(values, reverse=True)
        assert len(values) == 10 or sum(values) == pytest.approx(1.0)
        if temperature == 0:
            assert values == [entry["prob"]] == [1.0]


class TestEcho:
    """Answers that begin with their prompts."""

    @pytest.mark.parametrize("stream", [False, True])
    def test_prompts_are_as_likely_as_they_were_when_they_were_generated(
        self, server: ServerProcess, client: openai.OpenAI, stream: bool
    ) -> None:
        """As lm-evaluation-harness asks; several steps long, and cached, which must not matter."""
        head = server.ok("/tokenize", {"content": PROMPT})["tokens"]
        said = server.ok(
            "/completion",
            {"prompt": head, "n_predict": 200, "n_probs": 1, "temperature": 0, "ignore_eos": True},
        )["completion_probabilities"]
        prompts = [head, head + [one["id"] for one in said]]
        asked = {"model": "m", "prompt": prompts, "max_tokens": 1, "temperature": 0, "logprobs": 1, "seed": 1234}
        texts, found = ["", ""], [Arrays(), Arrays()]
        if stream:
            for chunk in client.completions.create(**asked, echo=True, stream=True):
                for choice in chunk.choices:
                    texts[choice.index] += choice.text
                    found[choice.index].add(choice.logprobs)
        else:
            for choice in client.completions.create(**asked, echo=True).choices:
                texts[choice.index] = choice.text
                found[choice.index].add(choice.logprobs)
        assert [len(one.values) for one in found] == [len(prompt) + 1 for prompt in prompts]
        short, long = found
        assert (long.values[0], long.top[0]) == (None, None)
        assert short.values[1:-1] == pytest.approx(long.values[1 : len(head)], abs=TOLERANCE)
        assert long.values[len(head) : -1] == pytest.approx([one["logprob"] for one in said], abs=TOLERANCE)
        for token, value, top, offset in list(zip(*long.rows(), strict=True))[len(head) :]:
            assert top[token] == value
            assert value == pytest.approx(max(top.values()), abs=TOLERANCE)  # greedy
            assert "\ufffd" in token or texts[1][offset:].startswith(token)
        assert texts[0].startswith(PROMPT)

    def test_without_an_answer(self, server: ServerProcess, model: Path) -> None:
        """Of what the bindings say of the same tokens; the text comes without log-probabilities as well."""
        text = f"<|im_start|>user\n{PROMPT} 🌍"
        body = {"prompt": text, "max_tokens": 0, "echo": True}
        (choice,) = server.ok("/v1/completions", {**body, "logprobs": 5, "n": 1})["choices"]
        tokens = server.ok("/tokenize", {"content": text})["tokens"]
        with Oracle(model, N_CTX) as oracle:
            rows = oracle.logits([], tokens[:-1])
        expected = [
            row[token] - np.logaddexp.reduce(row.astype(np.float64))
            for row, token in zip(rows, tokens[1:], strict=True)
        ]
        assert choice["logprobs"]["token_logprobs"] == [
            None,
            *(pytest.approx(one, abs=TOLERANCE) for one in expected),
        ]
        assert (choice["text"], choice["finish_reason"]) == (text, "length")
        assert server.ok("/v1/completions", body)["choices"] == [{**choice, "logprobs": None}]

    def test_each_of_several_choices(self, server: ServerProcess) -> None:
        body = {"prompt": PROMPT, "n": 2, "echo": True, "logprobs": 1, "max_tokens": 2, "seed": 1}
        first, second = server.ok("/v1/completions", body)["choices"]
        values = [one["logprobs"]["token_logprobs"][:-2] for one in (first, second)]
        assert values[0][1:] == pytest.approx(values[1][1:], abs=TOLERANCE)
        assert all(one["text"].startswith(PROMPT) for one in (first, second))


class Arrays:
    """The legacy arrays of one choice, joined."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.values: list[float | None] = []
        self.top: list[dict[str, float] | None] = []
        self.offsets: list[int] = []

    def rows(self) -> tuple[list[Any], ...]:
        return self.tokens, self.values, self.top, self.offsets

    def add(self, found: openai.types.completion_choice.Logprobs | None) -> None:
        """Those of a chunk."""
        if found is not None:
            self.tokens += found.tokens or []
            self.values += found.token_logprobs or []
            self.top += found.top_logprobs or []
            self.offsets += found.text_offset or []
