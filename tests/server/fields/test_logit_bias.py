"""Texts in logit_bias become the tokens that are biased, in the replies as in the engine."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from llamabox.server.app import create_app
from llamabox.server.config import ServerConfig
from llamabox.server.fields.logit_bias import MAX_ENTRIES
from llamabox.wire.questions import Tokenise, Tokens
from tests.server.fake_client import FakeTextClient, saying

BODIES = {
    "/completion": {"prompt": "a"},
    "/v1/completions": {"prompt": "a"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
}


@pytest.mark.parametrize("path", BODIES)
def test_the_last_entry_of_a_token_counts_and_is_shown(path: str) -> None:
    fake = FakeTextClient(saying("a"))
    fake.answers[Tokenise] = Tokens([7, 8])
    with TestClient(create_app(ServerConfig(), fake)) as server:
        body = {**BODIES[path], "logit_bias": [[7, 1], ["ab", False], [8, 2.5]], "verbose": True}
        reply = server.post(path, json=body).json()
        assert fake.submits[-1].params.sampling.logit_bias == ((7, float("-inf")), (8, 2.5))
        settings = reply.get("__verbose", reply)["generation_settings"]
        assert settings["logit_bias"] == [{"bias": None, "token": 7}, {"bias": 2.5, "token": 8}]


def test_texts_of_too_many_tokens_are_refused() -> None:
    fake = FakeTextClient(saying("a"))
    fake.answers[Tokenise] = Tokens(list(range(MAX_ENTRIES + 1)))
    with TestClient(create_app(ServerConfig(), fake)) as server:
        reply = server.post("/completion", json={"prompt": "a", "logit_bias": {"long": 1}})
        assert (reply.status_code, "'logit_bias'" in reply.json()["detail"]) == (400, True)
        assert fake.submits == []
