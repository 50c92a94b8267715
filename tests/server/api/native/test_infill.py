"""POST /infill: its fields, and that the rest is /completion's."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from llamabox.errors import NotSupported
from llamabox.server.hosted.config import ModelConfig
from llamabox.wire.questions import Layout, LayOutInfill
from tests.server.fake_client import FakeTextClient, saying
from tests.server.harness import events, text_app

ON = ModelConfig(enable_infill=True)
FILES = {"input_prefix": "def add(", "input_suffix": "return a + b"}


def serving(fake: FakeTextClient, config: ModelConfig | None = None) -> TestClient:
    return TestClient(text_app(fake, config), raise_server_exceptions=False)


def client() -> FakeTextClient:
    made = FakeTextClient(saying("a", ", b"))
    made.answers[LayOutInfill] = Layout([1, 2, 3], "<PRE>def add(")
    return made


def test_it_answers_as_a_completion_of_the_tokens_that_the_worker_made() -> None:
    extra = [{"text": "import os", "filename": "x.py"}, {"text": "", "filename": None}]
    fake = client()
    with serving(fake, ON) as server:
        body = {
            **FILES,
            "prompt": "a",
            "input_extra": extra,
            "n_predict": 5,
            "temperature": 0.25,
            "samplers": ["infill"],
        }
        reply = server.post("/infill", json=body).json()
        extra_texts = [("x.py", "import os"), ("tmp", "")]
        assert fake.asked == [
            LayOutInfill(prefix="def add(", suffix="return a + b", prompt="a", extra=extra_texts, n_predict=5)
        ]
        [submit] = fake.submits
        assert (submit.prompt, submit.params.n_predict) == ([1, 2, 3], 5)
        assert (submit.params.sampling.temperature, submit.params.sampling.samplers) == (0.25, ("infill",))
        completion = server.post("/completion", json={**body, "prompt": [1]}).json()
        assert reply.keys() == completion.keys()
        assert (reply["content"], reply["prompt"]) == ("a, b", "<PRE>def add(")


def test_a_stream_has_no_done() -> None:
    fake = client()
    with serving(fake, ON) as server:
        found = events(server.post("/infill", json={**FILES, "stream": True}).text)
        assert "[DONE]" not in found
        assert [event["content"] for event in found] == ["a", ", b", ""]  # type: ignore[index]
        assert found[-1]["stop"] is True  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input_prefix": None}, "input_prefix"),
        ({"input_suffix": None}, "input_suffix"),
        ({"input_prefix": 5}, "input_prefix"),
        ({"input_suffix": ["x"]}, "input_suffix"),
        ({"prompt": ["x"]}, "prompt"),
        ({"prompt": [1]}, "prompt"),
        ({"input_extra": "x"}, "input_extra"),
        ({"input_extra": {}}, "input_extra"),
        ({"input_extra": ["x"]}, "input_extra"),
        ({"input_extra": [{}]}, "input_extra"),
        ({"input_extra": [{"filename": "x"}]}, "input_extra"),
        ({"input_extra": [{"text": 5}]}, "input_extra"),
        ({"input_extra": [{"text": "x", "filename": 5}]}, "input_extra"),
        ({"input_extra": [{"text": ""}] * 5000}, "input_extra"),
        ({"temperature": "hot"}, "temperature"),
    ],
)
def test_wrong_fields_are_named(change: dict[str, object], field: str) -> None:
    fake = client()
    with serving(fake, ON) as server:
        response = server.post("/infill", json={**FILES, **change})
        assert response.status_code == 400
        assert response.json()["error"]["message"].startswith(f"Field '{field}': ")
        assert fake.asked == []


def test_files_beyond_all_measure_are_refused_before_they_are_tokenised() -> None:
    fake = client()
    with serving(fake, ON) as server:
        body = {**FILES, "input_extra": [{"text": "x" * (3 << 20)}, {"text": "x" * (1 << 20)}]}
        assert server.post("/infill", json=body).status_code == 413
        assert fake.asked == []


def test_without_its_flag_or_without_the_tokens_it_is_501() -> None:
    with serving(client()) as server:
        response = server.post("/infill", json={})
        assert (response.status_code, response.json()["error"]["type"]) == (501, "not_supported_error")
        assert "--infill" in response.json()["error"]["message"]
    fake = client()
    fake.answers[LayOutInfill] = NotSupported("Infill is not supported by this model: prefix token is missing")
    with serving(fake, ON) as server:
        response = server.post("/infill", json=FILES)
        assert response.status_code == 501
        assert response.json()["error"]["message"].startswith("Infill is not supported by this model: ")
