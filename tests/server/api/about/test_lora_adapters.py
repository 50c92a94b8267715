"""LoRA scales over HTTP: what is refused, what holds for whom, and that nothing changes half."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from llamabox.engine.request import GenerationParams, LoraSet
from llamabox.server.hosted.config import ModelConfig
from tests.server.fake_client import INFO, FakeTextClient, saying
from tests.server.harness import by_field, text_app

ADAPTERS = [
    {"path": "/a.gguf", "task_name": "", "prompt_prefix": ""},
    {"path": "/b.gguf", "task_name": "verse", "prompt_prefix": "Rhyme: "},
]
BODIES: dict[str, dict[str, Any]] = {
    "/completion": {"prompt": "a"},
    "/v1/completions": {"prompt": "a"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
}
WRONG = {
    "no array": ({"id": 0, "scale": 1}, ""),
    "no objects": ([1], "[0]"),
    "an array of arrays": ([[0, 1]], "[0]"),
    "no id": ([{"scale": 1}], "[0].id"),
    "a text as id": ([{"id": "0", "scale": 1}], "[0].id"),
    "a truth as id": ([{"id": False, "scale": 1}], "[0].id"),
    "half an id": ([{"id": 0.5, "scale": 1}], "[0].id"),
    "an id below all": ([{"id": -1, "scale": 1}], "[0].id"),
    "an unknown id": ([{"id": 0, "scale": 1}, {"id": 2, "scale": 1}], "[1].id"),
    "an id twice": ([{"id": 0, "scale": 1}, {"id": 0, "scale": 1}], "[1].id"),
    "no scale": ([{"id": 0}], "[0].scale"),
    "null as scale": ([{"id": 0, "scale": None}], "[0].scale"),
    "a text as scale": ([{"id": 0, "scale": "1"}], "[0].scale"),
    "a truth as scale": ([{"id": 0, "scale": True}], "[0].scale"),
    "a huge scale": ([{"id": 0, "scale": 1e39}], "[0].scale"),
    "too large a scale": ([{"id": 0, "scale": -101}], "[0].scale"),
}
FIRST: LoraSet = ((0, 1.0), (1, 0.5))


def served(client: FakeTextClient | None = None, lora: LoraSet = FIRST, **config: Any) -> tuple[TestClient, Any]:
    client = client or FakeTextClient(saying("a"), info=replace(INFO, lora=ADAPTERS))
    config = {"defaults": GenerationParams(lora=lora), **config}
    return TestClient(text_app(client, *by_field(config))), client


def scales(http: TestClient) -> list[float]:
    return [one["scale"] for one in http.get("/lora-adapters").json()]


def test_adapters_are_listed_with_the_scales_that_hold() -> None:
    http, _ = served(lora=((1, 0.5),))
    with http:
        assert http.get("/lora-adapters").json() == [
            {"id": 0, "path": "/a.gguf", "scale": 0.0, "task_name": "", "prompt_prefix": ""},
            {"id": 1, "path": "/b.gguf", "scale": 0.5, "task_name": "verse", "prompt_prefix": "Rhyme: "},
        ]


@pytest.mark.parametrize("path", BODIES)
def test_a_request_is_computed_with_its_own_scales_or_those_that_hold(path: str) -> None:
    http, client = served()
    with http:
        for body, chosen in (
            ({}, FIRST),
            ({"lora": None}, FIRST),
            ({"lora": []}, ()),
            ({"lora": [{"id": 1, "scale": -2}]}, ((1, -2.0),)),
            ({"lora": [{"id": 1, "scale": 0}, {"id": 0, "scale": 0.25}]}, ((0, 0.25),)),
        ):
            assert http.post(path, json={**BODIES[path], **body}).status_code == 200
            assert client.submits[-1].params.lora == chosen


def test_the_set_is_told_in_the_settings() -> None:
    http, _ = served()
    with http:
        reply = http.post("/completion", json={"prompt": "a", "lora": [{"id": 1, "scale": 2}]}).json()
        assert reply["generation_settings"]["lora"] == [{"id": 1, "scale": 2.0}]
        settings = http.get("/props").json()["default_generation_settings"]
        assert settings["lora"] == [{"id": 0, "scale": 1.0}, {"id": 1, "scale": 0.5}]


def test_posted_scales_leave_the_configuration_as_it_was_given() -> None:
    config = ModelConfig(defaults=GenerationParams(lora=FIRST))
    app = text_app(FakeTextClient(saying("a"), info=replace(INFO, lora=ADAPTERS)), config)
    with TestClient(app) as http:
        http.post("/lora-adapters", json=[])
    hosted = app.state.site.hosted
    assert hosted.config is config
    assert (config.defaults.lora, hosted.defaults.lora) == (FIRST, ())


def test_posted_scales_hold_for_what_comes_after() -> None:
    http, client = served()
    with http:
        reply = http.post("/lora-adapters", json=[{"id": 0, "scale": 0.25}])
        assert (reply.status_code, reply.json()) == (200, {"success": True})
        assert scales(http) == [0.25, 0.0]
        http.post("/completion", json={"prompt": "a"})
        assert client.submits[-1].params.lora == ((0, 0.25),)
        assert http.get("/props").json()["default_generation_settings"]["lora"] == [{"id": 0, "scale": 0.25}]
        assert http.post("/lora-adapters", json=[]).json() == {"success": True}
        assert scales(http) == [0.0, 0.0]


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_named_and_changes_nothing(kind: str) -> None:
    value, where = WRONG[kind]
    http, client = served()
    with http:
        for path, body in BODIES.items():
            reply = http.post(path, json={**body, "lora": value})
            assert reply.status_code == 400
            assert f"'lora{where}'" in reply.json()["detail"]
        reply = http.post("/lora-adapters", json=value)
        assert reply.status_code == 400
        assert where in reply.json()["detail"]
        assert scales(http) == [1.0, 0.5]
        assert client.submits == []


@pytest.mark.parametrize("raw", [b"", b"{", b"5", b'"x"', b"{}", b"null", b'[{"id": 0, "scale": NaN}]'])
def test_a_body_that_is_no_array(raw: bytes) -> None:
    http, _ = served()
    with http:
        assert http.post("/lora-adapters", content=raw).status_code == 400
        assert scales(http) == [1.0, 0.5]


def test_without_adapters_there_is_a_hint_and_no_scale_can_be_asked_for() -> None:
    http, _ = served(FakeTextClient(saying("a")), lora=())
    with http:
        for reply in (http.get("/lora-adapters"), http.post("/lora-adapters", json=[])):
            assert reply.status_code == 501
            assert reply.json()["error"]["type"] == "not_supported_error"
            assert "--lora" in reply.json()["detail"]
        reply = http.post("/completion", json={"prompt": "a", "lora": [{"id": 0, "scale": 1}]})
        assert reply.status_code == 400
        assert "--lora" in reply.json()["detail"]
        assert http.post("/completion", json={"prompt": "a", "lora": []}).status_code == 200


def test_the_prefix_and_other_methods() -> None:
    http, _ = served(api_prefix="/api")
    with http:
        assert http.get("/lora-adapters").status_code == 404
        assert http.post("/api/lora-adapters", json=[]).status_code == 200
        assert len(http.get("/api/lora-adapters").json()) == 2
        assert http.head("/api/lora-adapters").status_code == 200
        refused = http.put("/api/lora-adapters", json=[])
        assert refused.status_code == 405
        assert {"GET", "POST"} <= set(refused.headers["allow"].split(", "))
