"""POST /v1/rerank: what is asked of the worker, and what is made of its answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from llamabox.engine.events import Vector
from llamabox.errors import ContextExceeded, LlamaboxError
from llamabox.server.hosted.config import ModelConfig
from tests.server.fake_client import FakeTextClient
from tests.server.harness import text_app

ON = ModelConfig(enable_rerank=True)
BODY = {"query": "why?", "documents": ["a", {"text": "b", "page": 2}, "c"]}


class Ranked:
    """What the client returns: outputs that are known, or an error."""

    def __init__(self, rows: list[list[float]] | LlamaboxError) -> None:
        self.rows = rows

    async def all(self) -> list[Vector]:
        if isinstance(self.rows, LlamaboxError):
            raise self.rows
        data = [np.array(row, np.float32).tobytes() for row in self.rows]
        return [Vector("r", index, 10 + index, one) for index, one in enumerate(data)]


class RankingClient(FakeTextClient):
    """Answers every question with the same outputs."""

    def __init__(self, rows: list[list[float]] | LlamaboxError) -> None:
        super().__init__()
        self.rows = rows
        self.asked: list[tuple[str, list[str], dict[str, Any]]] = []

    def rank(self, query: str, documents: list[str], **settings: Any) -> Any:
        self.asked.append((query, documents, settings))
        return Ranked(self.rows)


def post(client: FakeTextClient, body: dict[str, Any], config: ModelConfig = ON) -> Any:
    with TestClient(text_app(client, config), raise_server_exceptions=False) as server:
        return server.post("/v1/rerank", json=body)


def test_the_worker_gets_the_texts_and_the_client_the_documents() -> None:
    client = RankingClient([[0.0], [2.0], [-2.0]])
    reply = post(client, {**BODY, "model": "m"}).json()
    assert client.asked == [("why?", ["a", "b", "c"], {"field": "documents", "n_document": None, "truncate": False})]
    assert [(one["index"], one["document"]) for one in reply["results"]] == [
        (1, {"text": "b", "page": 2}), (0, {"text": "a"}), (2, {"text": "c"}),
    ]  # fmt: skip
    found = [one["relevance_score"] for one in reply["results"]]
    assert found == pytest.approx([0.8808, 0.5, 0.1192], abs=1e-4)
    assert reply["usage"] == {"prompt_tokens": 33, "total_tokens": 33}
    assert reply["model"] == "m"


def test_classes_give_the_probability_of_the_first() -> None:
    reply = post(RankingClient([[1.0, 1.0], [3.0, -3.0], [-3.0, 3.0]]), BODY).json()
    assert [one["index"] for one in reply["results"]] == [1, 0, 2]
    assert reply["results"][1]["relevance_score"] == 0.5
    raw = post(RankingClient([[1.0, 1.0], [3.0, -3.0], [-3.0, 3.0]]), {**BODY, "normalize": False}).json()
    assert [one["relevance_score"] for one in raw["results"]] == [3, 1, -3]


def test_the_bare_dialect() -> None:
    client = RankingClient([[0.0], [2.0]])
    flags = {"raw_scores": True, "return_text": True, "truncate": True}
    reply = post(client, {"query": "q", "texts": ["a", "b"], "top_n": 1, "max_tokens_per_doc": 9, **flags})
    assert client.asked == [("q", ["a", "b"], {"field": "texts", "n_document": 9, "truncate": True})]
    assert reply.json() == [{"index": 1, "score": 2.0, "text": "b"}]


@pytest.mark.parametrize("output", [float("nan"), float("inf"), float("-inf")])
def test_no_number_is_no_score(output: float) -> None:
    response = post(RankingClient([[0.0], [output], [0.0]]), BODY)
    assert response.status_code == 500
    assert "document 1" in response.json()["error"]["message"]


def test_what_the_worker_refuses_is_told_as_it_is() -> None:
    error = ContextExceeded("Field 'documents': document 2 is too large", n_prompt_tokens=300, n_ctx=256)
    told = post(RankingClient(error), BODY).json()["error"]
    assert told["message"] == "Field 'documents': document 2 is too large"
    assert (told["type"], told["n_prompt_tokens"], told["n_ctx"]) == ("exceed_context_size_error", 300, 256)


def test_without_its_flag_it_is_501_and_nothing_is_asked() -> None:
    client = RankingClient([[0.0]])
    response = post(client, BODY, ModelConfig(enable_embeddings=True))
    assert (response.status_code, response.json()["error"]["type"]) == (501, "not_supported_error")
    assert "--rerank" in response.json()["error"]["message"]
    assert client.asked == []
