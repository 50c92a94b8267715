"""Many prompts with much to say about each: what they share is held once, and how many there may be is told."""

from __future__ import annotations

import asyncio
import tracemalloc
from dataclasses import replace
from typing import Any

import orjson
import pytest

from llamabox.server.generation.running import MAX_ANSWERS
from llamabox.server.hosted.config import ModelConfig
from tests.server.fake_client import INFO, FakeTextClient, saying
from tests.server.harness import events, running

N_PROMPTS = 200
N_BIASES = 4096

LONG: dict[str, dict[str, Any]] = {
    "biases": {"logit_bias": [[token, 0.5] for token in range(N_BIASES)]},
    "stop strings": {"stop": ["x" * 4000] * 4},
    "grammar": {"grammar": 'root ::= "a"\n#' + "x" * 100_000},
}


def client() -> FakeTextClient:
    return FakeTextClient(saying("word"), info=replace(INFO, n_vocab=2 * N_BIASES))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("what", LONG)
def test_settings_are_held_once_a_request_and_told_with_each_answer(what: str, stream: bool) -> None:
    """Each answer's settings as Python objects were half a megabyte."""

    async def scene() -> tuple[int, int, list[Any]]:
        async with running(client()) as server:
            body = {"prompt": ["a"] * N_PROMPTS, "stream": stream, **LONG[what]}
            one = await server.http.post("/completion", json={**body, "prompt": "a", "stream": False})
            settings = orjson.dumps(one.json()["generation_settings"])
            data = orjson.dumps(body)
            tracemalloc.start()
            async with server.http.stream("POST", "/completion", content=data) as reply:
                assert reply.status_code == 200
                n_bytes, tail = 0, b""
                async for piece in reply.aiter_raw():
                    n_bytes += len(piece)
                    tail = (tail + piece)[-2 * len(settings) :]
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert n_bytes > N_PROMPTS * len(settings)
            return peak, len(settings), orjson.loads(b"[" + tail[tail.rindex(b'{"index"') :].rstrip(b"]\n ") + b"]")

    peak, n_settings, [last] = asyncio.run(scene())
    assert last["index"] < N_PROMPTS if stream else last["index"] == N_PROMPTS - 1
    assert last["generation_settings"]["seed_cur"] == 42
    assert peak < 100 * n_settings + (16 << 20)


def test_an_array_and_a_stream_tell_the_same() -> None:
    async def scene() -> None:
        async with running(client()) as server:
            body = {"prompt": ["a", "b"], **LONG["biases"], "stop": ["\u2028"]}
            plain = (await server.http.post("/completion", json=body)).json()
            text = (await server.http.post("/completion", json={**body, "stream": True})).text
            assert "\u2028" not in text  # some clients take it for the end of a line
            streamed = [event for event in events(text) if isinstance(event, dict) and event["stop"]]
            assert [one["generation_settings"] for one in plain] == [
                {**one["generation_settings"], "stream": False} for one in streamed
            ]
            assert plain[0]["generation_settings"]["logit_bias"][5] == {"bias": 0.5, "token": 5}
            assert plain[0]["generation_settings"]["stop"] == ["\u2028"]

    asyncio.run(scene())


@pytest.mark.parametrize("path", ["/completion", "/v1/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_prompts_times_n_is_bounded(path: str, stream: bool) -> None:
    async def scene() -> None:
        async with running(FakeTextClient(saying("word")), ModelConfig()) as server:
            body = {"prompt": ["a"] * (MAX_ANSWERS // 2), "n": 2, "stream": stream}
            assert (await server.http.post(path, json=body)).status_code == 200
            reply = await server.http.post(path, json={**body, "prompt": [*body["prompt"], "a"]})
            assert reply.status_code == 400
            message = reply.json()["error"]["message"]
            assert all(word in message for word in ("'prompt'", "n = 2", "513 prompts", "1026", "1024"))

    asyncio.run(scene())
