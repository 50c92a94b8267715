"""What a server that draws tells of itself, and what it is not asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from llamabox.clients.image.client import JobState, QueueState
from llamabox.clients.state import WorkerState
from llamabox.engine.request import GenerationParams
from llamabox.server.hosted.images import OF_LANGUAGE_MODELS
from llamabox.server.routes import ROUTES
from tests.server.fake_images import INFO, FakeImageClient
from tests.server.harness import by_field, image_app

GENERATE = "/v1/images/generations"
ADAPTERS = [{"path": "/a.safetensors"}, {"path": "/b.safetensors"}]


def waiting(request_id: str) -> JobState:
    return JobState(request_id, "waiting", step=0, steps=4, index=0, n=1)


def served(client: FakeImageClient | None = None, **config: Any) -> TestClient:
    return TestClient(image_app(client or FakeImageClient(), *by_field(config)))


OF_TEXTS = [row for row in ROUTES if row.method == "POST" and row.needs in OF_LANGUAGE_MODELS]


@pytest.mark.parametrize(
    "path", [path.format(id_slot="0?action=save", id="a") for row in OF_TEXTS for path in row.paths]
)
def test_texts_are_forbidden_in_plain_words(path: str) -> None:
    with served() as http:
        reply = http.post(path, json={"prompt": "a", "input": "a", "content": "a"})
        assert reply.status_code == 403
        words = {"infill": "infill", "embedding": "embedding", "rerank": "reranking", "tokenize": "tokenization"}
        words["audio"] = "transcription"
        what = next((word for part, word in words.items() if part in path), "completion")
        told = f"You are not allowed to do {what} from this model"
        if path.startswith("/v1/messages"):
            assert reply.json()["error"] == {"type": "permission_error", "message": told}
            return
        assert (reply.headers["content-type"], reply.text) == ("text/plain; charset=utf-8", told)


def test_the_model_and_its_defaults() -> None:
    with served(alias="painter") as http:
        [entry] = http.get("/v1/models").json()["data"]
        assert (entry["id"], entry["object"], entry["owned_by"]) == ("painter", "model", "llama-box")
        assert http.get("/v1/models/painter").json() == entry
        assert http.get("/v1/models/poet").status_code == 404
        meta = entry["meta"]
        assert (meta["family"], meta["sampler"], meta["sample_steps"]) == ("SD 1.x", "euler_a", 4)
        assert (meta["default_size"], meta["max_width"], meta["max_batch_count"]) == ("512x512", 1024, 4)
        props = http.get("/props").json()
        assert (props["total_slots"], props["model_path"], props["chat_template"]) == (3, INFO.path, "")
        settings = props["default_generation_settings"]
        assert settings["params"]["cfg_scale"] == settings["cfg_scale"] == 9.0
        assert http.post("/props", json={}).status_code == 501


def test_slots_are_the_one_that_is_drawn_and_those_that_wait() -> None:
    client = FakeImageClient()
    with served(client, enable_slots=True) as http:
        assert [slot["is_processing"] for slot in http.get("/slots?fail_on_no_slot").json()] == [False] * 3
        client.queue = QueueState(1, 1, [JobState("5", "drawing", 3, 20, 1, 2), waiting("6")])
        drawn, second, idle = http.get("/slots").json()
        assert [slot["id"] for slot in (drawn, second, idle)] == [0, 1, 2]
        assert (drawn["id_task"], drawn["state"], drawn["progressed_steps"], drawn["progress_steps"]) == (5, 4, 3, 20)
        assert (drawn["index"], drawn["n"]) == (1, 2)
        assert (second["id_task"], second["state"], second["is_processing"]) == (6, 1, True)
        assert (idle["id_task"], idle["state"]) == (-1, 0)
        assert drawn["sampler"] == "euler_a"
        client.queue = QueueState(1, 2, [waiting(str(i)) for i in range(3)])
        assert http.get("/slots?fail_on_no_slot").status_code == 503
    with served() as http:
        assert "--slots" in http.get("/slots").json()["detail"]


def test_metrics_are_the_sums_over_the_pictures() -> None:
    client = FakeImageClient()
    with served(client, enable_metrics=True) as http:
        http.post(GENERATE, json={"prompt": "a", "n": 3})
        client.queue = QueueState(1, 2, [])
        client.n_restarts = 1
        text = http.get("/metrics").text
        found = {one.name: one.value for family in text_string_to_metric_families(text) for one in family.samples}
        assert found["llamabox:images_drawn_total"] == found["llamabox:image_forward_total"] == 3
        assert found["llamabox:image_forward_seconds_total"] == pytest.approx(0.03)
        assert found["llamabox:image_reverse_total"] == 12
        assert found["llamabox:image_reverse_seconds_total"] == pytest.approx(1.2)
        assert found["llamabox:image_reverse_steps_per_second"] == pytest.approx(10)
        assert (found["llamacpp:requests_processing"], found["llamacpp:requests_deferred"]) == (1, 2)
        assert found["llamabox:worker_restarts_total"] == 1
        assert found["llamabox:queue_seconds_count"] == found["llamabox:request_seconds_count"] == 1
        again = http.get("/metrics").text
        assert "llamabox:image_reverse_steps_per_second 0.0" in again
    with served() as http:
        assert "--metrics" in http.get("/metrics").json()["detail"]


def test_adapters() -> None:
    client = FakeImageClient(info=replace(INFO, lora=ADAPTERS))
    with served(client, defaults=GenerationParams(lora=((1, 0.5),))) as http:
        assert http.get("/lora-adapters").json() == [
            {"id": 0, "path": "/a.safetensors", "scale": 0.0},
            {"id": 1, "path": "/b.safetensors", "scale": 0.5},
        ]
        http.post(GENERATE, json={"prompt": "a"})
        assert client.jobs[-1].lora == ((1, 0.5),)
        assert http.post("/lora-adapters", json=[{"id": 0, "scale": 2}]).json() == {"success": True}
        assert [one["scale"] for one in http.get("/lora-adapters").json()] == [2.0, 0.0]
        http.post(GENERATE, json={"prompt": "a"})
        assert client.jobs[-1].lora == ((0, 2.0),)
        http.post(GENERATE, json={"prompt": "a", "lora": [{"id": 1, "scale": -1}]})
        assert client.jobs[-1].lora == ((1, -1.0),)
        assert http.post("/lora-adapters", json=[{"id": 2, "scale": 2}]).status_code == 400
        assert [one["scale"] for one in http.get("/lora-adapters").json()] == [2.0, 0.0]
    with served() as http:
        assert http.get("/lora-adapters").status_code == 501


def test_everything_is_503_while_there_is_no_model() -> None:
    client = FakeImageClient()
    client.state, client.info, client.takes_jobs = WorkerState.LOADING, None, False
    with served(client, enable_metrics=True) as http:
        for reply in (http.get("/health"), http.get("/v1/models"), http.post(GENERATE, json={"prompt": "a"})):
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        client.info = INFO
        assert http.get("/metrics").status_code == 200, "between two workers the counts are there"
        client.state = WorkerState.READY
        assert http.get("/health").json() == {"status": "ok"}


def test_jobs_wait_for_a_worker_that_is_replaced() -> None:
    client = FakeImageClient()
    client.state = WorkerState.RESTARTING
    with served(client, api_prefix="/a") as http:
        assert http.get("/a/health").status_code == 503
        assert http.post("/a/v1/images/generations", json={"prompt": "a"}).status_code == 200
        client.takes_jobs = False
        assert http.post("/a/v1/images/generations", json={"prompt": "a"}).status_code == 503
