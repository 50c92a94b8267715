"""return_progress: chunks that tell how far the prompt is, in each dialect's shape."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llamabox.engine.events import Progress, Timings
from llamabox.server.hosted.config import ModelConfig
from tests.server.fake_client import FakeTextClient, saying
from tests.server.harness import events, running

ROUTES: dict[str, dict[str, Any]] = {
    "/completion": {"prompt": "a"},
    "/infill": {"input_prefix": "a", "input_suffix": "b"},
    "/v1/completions": {"prompt": "a"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
}


def told(submit: Any) -> Any:
    """Two steps of a prompt of 8 tokens, the first 2 of which were cached; then one word."""
    steps = [Timings(2), Timings(2, 4, 7.9), Timings(2, 6, 12.0)]
    progress = [Progress(submit.request_id, 0, 0, 8, timings) for timings in steps]
    return [progress[:2], [progress[2], *saying("word")(submit)[0]], *saying("word")(submit)[1:]]


def streamed(path: str, **fields: object) -> tuple[FakeTextClient, list[Any]]:
    async def scene() -> tuple[FakeTextClient, list[Any]]:
        client = FakeTextClient(told)
        async with running(client, ModelConfig(enable_infill=True)) as server:
            reply = await server.http.post(path, json={**ROUTES[path], "stream": True, **fields})
            return client, [event for event in events(reply.text) if event != "[DONE]"]

    return asyncio.run(scene())


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("with_timings", [True, False])
def test_chunks_come_before_the_text(path: str, with_timings: bool) -> None:
    client, chunks = streamed(path, return_progress=True, timings_per_token=with_timings)
    assert client.submits[0].params.return_progress
    progress = [chunk for chunk in chunks if "prompt_progress" in chunk]
    assert progress == chunks[:3]
    assert [chunk["prompt_progress"] for chunk in progress] == [
        {"total": 8, "cache": 2, "processed": 2, "time_ms": 0},
        {"total": 8, "cache": 2, "processed": 6, "time_ms": 7},
        {"total": 8, "cache": 2, "processed": 8, "time_ms": 12},
    ]
    for chunk in progress:
        assert ("timings" in chunk) == with_timings
        if path in ("/completion", "/infill"):
            assert (chunk["content"], chunk["tokens"], chunk["stop"], chunk["tokens_evaluated"]) == ("", [], False, 8)
            continue
        (choice,) = chunk["choices"]
        assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, None, None)
        assert chunk["id"] == chunks[-1]["id"]
        if path == "/v1/completions":
            assert choice["text"] == ""
        else:
            assert choice["delta"] == {"role": "assistant", "content": None}
    if with_timings:
        first = progress[0]["timings"]
        assert [value for name, value in first.items() if name != "cache_n"] == [0] * (len(first) - 1)


@pytest.mark.parametrize("path", ROUTES)
def test_a_plain_reply_has_none(path: str) -> None:
    async def scene() -> None:
        client = FakeTextClient(saying("word"))
        async with running(client, ModelConfig(enable_infill=True)) as server:
            reply = await server.http.post(path, json={**ROUTES[path], "return_progress": True})
            assert reply.status_code == 200
            assert "prompt_progress" not in reply.text
            assert not client.submits[0].params.return_progress
            reply = await server.http.post(path, json={**ROUTES[path], "return_progress": 1})
            assert reply.status_code == 400
            assert "return_progress" in reply.json()["error"]["message"]

    asyncio.run(scene())
