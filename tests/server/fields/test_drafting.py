"""Fields of speculation: what becomes of them on the way to the worker, and what replies tell of drafts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from llamabox.engine.events import Event
from llamabox.engine.request import DraftingParams, GenerationParams
from llamabox.wire.text import Submit
from tests.server.fake_client import INFO, FakeTextClient, saying, timings
from tests.server.harness import by_field, text_app

SERVERS = GenerationParams(drafting=DraftingParams(n_max=16, n_min=2, p_min=0.25))


class Told:
    """A server that notes what its worker is told."""

    def __init__(self, **config: Any) -> None:
        self.submits: list[Submit] = []
        drafters = replace(INFO, drafters=["text", "model"])
        self.http = TestClient(text_app(FakeTextClient(self._script, info=drafters), *by_field(config)))

    def _script(self, submit: Submit) -> list[list[Event]]:
        self.submits.append(submit)
        steps = saying("a", "b")(submit)
        for event in steps[-1]:
            assert hasattr(event, "timings")
            event.timings = replace(timings(2), n_drafted=8, n_accepted=6, n_foreseen=4, n_foreseen_accepted=3)
        return steps

    def post(self, route: str = "/completion", headers: dict[str, str] | None = None, **body: Any) -> Any:
        prompt = {"messages": [{"role": "user", "content": "x"}]} if "chat" in route else {"prompt": "x"}
        reply = self.http.post(route, json=prompt | body, headers=headers)
        return reply.json()

    def drafting(self, **body: Any) -> DraftingParams:
        self.post(**body)
        return self.submits[-1].params.drafting


@contextmanager
def serving(**config: Any) -> Iterator[Told]:
    told = Told(defaults=SERVERS, **config)
    with told.http:
        yield told


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    with serving() as one:
        yield one


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({}, {}),
        ({"n_max": 0}, {"n_max": 0, "n_min": 0}),
        ({"n_max": 5}, {"n_max": 5}),
        ({"n_max": 1}, {"n_max": 1, "n_min": 1}),
        ({"n_max": 99}, {"n_max": 16}),
        ({"n_max": -1, "n_min": None}, {}),
        ({"n_min": 8, "n_max": 4}, {"n_min": 4, "n_max": 4}),
        ({"p_min": 1, "n_min": 0}, {"p_min": 1.0, "n_min": 0}),
        ({"type": "none"}, {"n_max": 0, "n_min": 0}),
    ],
)
def test_both_forms_reach_the_worker_within_what_the_server_allows(
    told: Told, given: dict[str, Any], changed: dict[str, Any]
) -> None:
    expected = replace(SERVERS.drafting, **changed)
    assert told.drafting(speculative=given) == expected
    assert told.drafting(**{f"speculative.{name}": value for name, value in given.items()}) == expected
    assert told.drafting(route="/v1/chat/completions", speculative=given) == expected


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"speculative": 3}, "speculative"),
        ({"speculative": {"n_max": "3"}}, "speculative.n_max"),
        ({"speculative.n_max": -2}, "speculative.n_max"),
        ({"speculative.n_min": -1}, "speculative.n_min"),
        ({"speculative.p_min": 1.5}, "speculative.p_min"),
        ({"speculative": {"type": "ngram-mod"}}, "speculative.type"),
        ({"speculative.ngram_size_n": 12}, "speculative.ngram_size_n"),
        ({"speculative": {"n_max": 1}, "speculative.n_max": 1}, "speculative.n_max"),
        ({"prediction": "text"}, "prediction"),
        ({"prediction": {"content": "text"}}, "prediction.type"),
        ({"prediction": {"type": "content"}}, "prediction.content"),
        ({"prediction": {"type": "content", "content": ["text"]}}, "prediction.content[0]"),
        ({"prediction": {"type": "content", "content": [{"type": "image_url"}]}}, "prediction.content[0].type"),
        ({"prediction": {"type": "content", "content": [{"type": "text"}]}}, "prediction.content[0].text"),
        ({"prediction": {"type": "content", "content": "x" * 16 * 257}}, "prediction"),
        ({"prediction": {"type": "content", "content": "x"}, "n": 2}, "prediction"),
        ({"prediction": {"type": "content", "content": "x"}, "prompt": ["a", "b"]}, "prediction"),
    ],
)
def test_wrong_values_are_named(told: Told, body: dict[str, Any], field: str) -> None:
    error = told.post(**body)["error"]
    assert error["code"] == 400
    assert f"Field '{field}'" in error["message"]


@pytest.mark.parametrize(
    "content", ["foreseen text", [{"type": "text", "text": "foreseen "}, {"type": "text", "text": "text"}]]
)
@pytest.mark.parametrize("route", ["/completion", "/v1/completions", "/v1/chat/completions"])
def test_a_prediction_travels_as_text_and_usage_tells_what_became_of_it(told: Told, route: str, content: Any) -> None:
    reply = told.post(route, prediction={"type": "content", "content": content})
    assert told.submits[-1].prediction == "foreseen text"
    if route != "/completion":
        details = {"accepted_prediction_tokens": 3, "rejected_prediction_tokens": 1}
        assert reply["usage"]["completion_tokens_details"] == details
        assert (reply["usage"]["draft_tokens"], reply["usage"]["draft_tokens_acceptance"]) == (8, 0.75)
        assert "completion_tokens_details" not in told.post(route)["usage"]
    assert (reply["timings"]["draft_n"], reply["timings"]["draft_n_accepted"]) == (8, 6)


def test_what_holds_is_shown(told: Told) -> None:
    shown = told.post(**{"speculative.n_max": 5})["generation_settings"]
    found = {name: value for name, value in shown.items() if name.startswith("speculative.")}
    assert found == {
        "speculative.types": "text,model",
        "speculative.n_max": 5,
        "speculative.n_min": 2,
        "speculative.p_min": 0.25,
    }


KEYS = frozenset({"one", "two"})


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_texts_help_those_with_the_same_key_and_the_key_is_not_told() -> None:
    with serving(api_keys=KEYS) as told:
        first, second = (told.drafting(headers=bearer(key)).audience for key in ("one", "two"))
        assert told.drafting(headers={"X-Api-Key": "one"}).audience == first != second
        assert not {first, second} & {"", *KEYS}
    with serving(api_keys=KEYS, spec_corpus="all") as told:
        assert {told.drafting(headers=bearer(key)).audience for key in KEYS} == {""}
    with serving() as told:
        assert told.drafting().audience == "", "without keys all are one"
