"""Log-probabilities in replies: an entry for each token, with the text it says, however the reply is cut."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from llamabox.engine.events import Delta, Event, FinishReason, Likely, StopType, TokenProbs
from llamabox.wire.text import Submit
from tests.server.fake_client import FakeTextClient, Script, finished, started, timings
from tests.server.harness import events, running

CHAT = {"messages": [{"role": "user", "content": "Hi"}], "logprobs": True, "top_logprobs": 2}
WORDS = [b"Hel", b"lo\xe2\x80\xa8", "w\u00f6".encode(), b"\xf0\x9f", b"\x8c\x8d", b"!", b""]
"""A line separator, a character over two tokens, and an end token that says nothing."""
TEXT = b"".join(WORDS).decode()


def probs(number: int, piece: bytes) -> TokenProbs:
    chosen = Likely(number, piece, -0.5)
    return TokenProbs(chosen, [chosen, Likely(900, b"x", -1.5), Likely(901, b"y", -2.5)][:2])


def saying_with_probs(groups: list[tuple[str, list[bytes]]], *, stop_word: str = "") -> Script:
    """Each group is a Delta: its text, and the pieces of the tokens behind it."""

    def script(submit: Submit) -> list[list[Event]]:
        steps: list[list[Event]] = [[started(submit)]]
        number = 0
        for text, pieces in groups:
            numbers = range(number, number + len(pieces))
            number += len(pieces)
            found = [probs(each, piece) for each, piece in zip(numbers, pieces, strict=True)]
            told = found if submit.params.n_probs else None
            steps.append([Delta(submit.request_id, 0, text, list(numbers), timings(number), told)])
        end = finished(submit, number, reason=FinishReason.STOP)
        if stop_word:
            end.stop_type, end.stopping_word = StopType.WORD, stop_word
        steps.append([end])
        return steps

    return script


PLAIN = saying_with_probs(
    [("Hel", WORDS[:1]), ("lo\u2028", WORDS[1:2]), ("wö", WORDS[2:3]), ("🌍", WORDS[3:5]), ("!", WORDS[5:6]),
     ("", WORDS[6:])]
)  # fmt: skip
STOPPED = saying_with_probs(
    [("ab", [b"ab"]), ("", [b"S"]), ("", [b"T"]), ("STx", [b"x"]), ("", [b"S"]), ("", [b"T"]), ("", [b"OP"])],
    stop_word="STOP",
)
KEPT = ["ab", "S", "T", "x"]
"""Tokens of STOPPED without those of its stop word; "ST" was held back once for nothing."""


def post(path: str, body: dict[str, Any], script: Script = PLAIN) -> Any:
    async def talk() -> Any:
        async with running(FakeTextClient(script)) as server:
            reply = await server.http.post(path, json=body)
            assert reply.status_code == 200, reply.text
            assert "\u2028" not in reply.text or not body.get("stream")
            return events(reply.text) if body.get("stream") else reply.json()

    return asyncio.run(talk())


def streamed_choices(path: str, body: dict[str, Any], script: Script = PLAIN) -> list[dict[str, Any]]:
    chunks = post(path, {**body, "stream": True}, script)
    return [chunk["choices"][0] for chunk in chunks if chunk != "[DONE]" and chunk["choices"]]


def test_native_has_an_entry_for_each_token() -> None:
    reply = post("/completion", {"prompt": "Hi", "n_probs": 2})
    found = reply["completion_probabilities"]
    assert [entry["id"] for entry in found] == list(range(len(WORDS)))
    assert b"".join(bytes(entry["bytes"]) for entry in found).decode() == reply["content"] == TEXT
    assert found[0] == {
        "id": 0,
        "token": "Hel",
        "bytes": [72, 101, 108],
        "logprob": -0.5,
        "top_logprobs": [
            {"id": 0, "token": "Hel", "bytes": [72, 101, 108], "logprob": -0.5},
            {"id": 900, "token": "x", "bytes": [120], "logprob": -1.5},
        ],
    }
    assert reply["generation_settings"]["n_probs"] == 2


def test_each_native_chunk_has_the_entries_of_its_tokens() -> None:
    plain = post("/completion", {"prompt": "Hi", "n_probs": 2})["completion_probabilities"]
    *chunks, last = post("/completion", {"prompt": "Hi", "n_probs": 2, "stream": True})
    for chunk in chunks:
        assert [entry["id"] for entry in chunk["completion_probabilities"]] == chunk["tokens"]
    assert [entry for chunk in chunks for entry in chunk["completion_probabilities"]] == plain
    assert "completion_probabilities" not in last


@pytest.mark.parametrize("script", [PLAIN, STOPPED], ids=["plain", "stopped"])
def test_streamed_chat_has_the_entries_of_the_plain_one(script: Script) -> None:
    plain = post("/v1/chat/completions", CHAT, script)["choices"][0]
    choices = streamed_choices("/v1/chat/completions", CHAT, script)
    entries = [entry for choice in choices if choice["logprobs"] for entry in choice["logprobs"]["content"]]
    assert entries == plain["logprobs"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == plain["message"]["content"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in entries)


@pytest.mark.parametrize("script", [PLAIN, STOPPED], ids=["plain", "stopped"])
def test_streamed_completion_has_the_arrays_of_the_plain_one(script: Script) -> None:
    body = {"prompt": "Hi", "logprobs": 1}
    plain = post("/v1/completions", body, script)["choices"][0]["logprobs"]
    joined: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for choice in streamed_choices("/v1/completions", body, script):
        for name, values in (choice["logprobs"] or {}).items():
            joined[name] += values
    assert joined == plain


def test_the_legacy_arrays() -> None:
    """Offsets are characters of the text; a token of a part of a character begins where that does."""
    choice = post("/v1/completions", {"prompt": "Hi", "logprobs": 5})["choices"][0]
    assert choice["text"] == TEXT
    found = choice["logprobs"]
    assert found["tokens"] == ["Hel", "lo\u2028", "wö", "\ufffd", "\ufffd\ufffd", "!", ""]
    assert found["token_logprobs"] == [-0.5] * len(WORDS)
    assert found["top_logprobs"][0] == {"Hel": -0.5, "x": -1.5}
    assert found["text_offset"] == [0, 3, 6, 8, 8, 9, 10]


def test_the_legacy_0_shows_the_sampled_tokens_alone() -> None:
    found = post("/v1/completions", {"prompt": "Hi", "logprobs": 0})["choices"][0]["logprobs"]
    assert found["top_logprobs"][0] == {"Hel": -0.5}


def test_entries_of_the_stop_word_are_trimmed() -> None:
    native = post("/completion", {"prompt": "Hi", "n_probs": 1, "stop": ["STOP"]}, STOPPED)
    assert [entry["token"] for entry in native["completion_probabilities"]] == KEPT
    chat = post("/v1/chat/completions", CHAT, STOPPED)["choices"][0]
    assert [entry["token"] for entry in chat["logprobs"]["content"]] == KEPT
    legacy = post("/v1/completions", {"prompt": "Hi", "logprobs": 1}, STOPPED)["choices"][0]
    assert legacy["logprobs"]["tokens"] == KEPT


def test_nothing_unasked() -> None:
    assert "completion_probabilities" not in post("/completion", {"prompt": "Hi"})
    for choice in streamed_choices("/v1/completions", {"prompt": "Hi"}):
        assert choice["logprobs"] is None


def test_probabilities_after_the_samplers_go_by_other_names() -> None:
    asked = {"n_probs": 2, "post_sampling_probs": True}
    native = post("/completion", {"prompt": "Hi", **asked})
    assert native["generation_settings"]["post_sampling_probs"] is True
    entry = native["completion_probabilities"][0]
    assert set(entry) == {"id", "token", "bytes", "prob", "top_probs"}
    assert entry["prob"] == pytest.approx(math.exp(-0.5))
    assert [set(top) for top in entry["top_probs"]] == [{"id", "token", "bytes", "prob"}] * 2
    chat = post("/v1/chat/completions", {**CHAT, **asked})["choices"][0]
    assert chat["logprobs"]["content"] == native["completion_probabilities"]
