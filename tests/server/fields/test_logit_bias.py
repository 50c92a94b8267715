"""Texts in logit_bias become the tokens that are biased, in the replies as in the engine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from httpx import Response
from starlette.testclient import TestClient

from llamabox.engine.events import SlotView
from llamabox.errors import InvalidRequest
from llamabox.server.hosted.config import ModelConfig
from llamabox.wire.questions import LookAtSlots, SlotViews
from tests.server.fake_client import FakeTextClient, saying
from tests.server.harness import text_app

BODIES = {
    "/completion": {"prompt": "a"},
    "/v1/completions": {"prompt": "a"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_the_last_entry_of_a_token_counts_and_is_shown(path: str, stream: bool) -> None:
    fake = FakeTextClient(saying("a"))
    with TestClient(text_app(fake, ModelConfig(enable_slots=True))) as server:
        asked = [[7, 1], ["ab", False], [8, 2.5]]
        response = server.post(path, json={**BODIES[path], "logit_bias": asked, "verbose": True, "stream": stream})
        ban = float("-inf")
        assert fake.submits[-1].params.sampling.logit_bias == ((7, 1), ("ab", ban), (8, 2.5)), "the worker knows tokens"
        assert fake.asked == [], "nothing is asked before the request"
        reply = last_object(response) if stream else response.json()
        settings = reply.get("__verbose", reply)["generation_settings"]
        assert settings["logit_bias"] == [{"bias": None, "token": 7}, {"bias": 2.5, "token": 8}]
        fake.answers[LookAtSlots] = SlotViews([SlotView(0, 0)])
        assert server.get("/slots").json()[0]["logit_bias"] == settings["logit_bias"]


def last_object(response: Response) -> Any:
    """The last event with a generation_settings in it."""
    data = [line.removeprefix("data: ") for line in response.text.splitlines() if "generation_settings" in line]
    return json.loads(data[-1])


def test_of_several_ids_the_last_counts() -> None:
    fake = FakeTextClient(saying("a"))
    with TestClient(text_app(fake)) as server:
        server.post("/completion", json={"prompt": "a", "logit_bias": [[7, 1], [8, 2.5], [7, -1]]})
        assert fake.submits[-1].params.sampling.logit_bias == ((7, -1), (8, 2.5))


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_worker_refuses_comes_before_any_header(stream: bool) -> None:
    """As it does where the texts become too many tokens."""
    error = InvalidRequest("Field 'logit_bias': its texts become more than 4096 tokens", field="logit_bias")
    fake = FakeTextClient(lambda submit: error)
    with TestClient(text_app(fake)) as server:
        reply = server.post("/completion", json={"prompt": "a", "logit_bias": {"long": 1}, "stream": stream})
        assert (reply.status_code, reply.json()["detail"]) == (400, error.message)
