"""One model that generates and embeds at once: neither changes, nor starves, the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.e2e.server_process import ServerProcess
from tests.e2e.survival import metric, wait_for

PROMPT = {"prompt": "The capital of France is", "n_predict": 24, "temperature": 0, "cache_prompt": False}
TEXTS = [f"The {i}th of all the sentences that somebody wrote about animals." for i in range(12)]


@pytest.fixture(scope="module")
def server(serve: Callable[..., ServerProcess]) -> ServerProcess:
    return serve("-c", "1024", "-np", "2", "--embeddings", "--metrics")


def embedded(server: ServerProcess, given: Any) -> np.ndarray[Any, Any]:
    data = server.ok("/v1/embeddings", {"input": given})["data"]
    return np.array([item["embedding"] for item in data])


def test_a_text_and_vectors_are_what_they_are_alone(server: ServerProcess) -> None:
    text = server.ok("/completion", PROMPT)["content"]
    alone = np.concatenate([embedded(server, one) for one in TEXTS])
    assert np.linalg.norm(alone, axis=1) == pytest.approx(1, abs=1e-5)
    together: list[np.ndarray[Any, Any]] = []
    embedding = threading.Thread(target=lambda: together.append(embedded(server, TEXTS)))
    embedding.start()
    texts = [server.ok("/completion", PROMPT)["content"] for _ in range(2)]
    embedding.join()
    assert texts == [text, text]
    # Half precision in the memory and in the sums: the neighbours move the last digits, and nothing else.
    assert (together[0] * alone).sum(axis=1).min() > 0.999


def test_neither_starves_the_other(server: ServerProcess) -> None:
    done: list[str] = []

    def embed() -> None:
        embedded(server, TEXTS * 4)
        done.append("vectors")

    bulk = threading.Thread(target=embed)
    bulk.start()
    wait_for(lambda: metric(server, "llamacpp:requests_deferred") > 0, "the passages to wait")
    for _ in server.stream("/completion", {**PROMPT, "n_predict": 16, "ignore_eos": True}):
        if not done:
            done.append("text")
    bulk.join()
    assert done == ["text", "vectors"], "a text begins while many vectors are being made"

    begun = threading.Event()

    def generate() -> None:
        for _ in server.stream("/completion", {**PROMPT, "n_predict": 400, "ignore_eos": True}):
            begun.set()
        done.append("long text")

    long = threading.Thread(target=generate)
    long.start()
    assert begun.wait(60)
    embedded(server, TEXTS[:2])
    done.append("more vectors")
    long.join()
    assert done[2:] == ["more vectors", "long text"], "vectors are made while a text is running"


def test_a_passage_longer_than_a_batch_is_computed_in_parts(server: ServerProcess) -> None:
    ids = [server.ok("/tokenize", {"content": " cat"})["tokens"][0]] * 511
    [whole] = embedded(server, [ids])
    assert np.linalg.norm(whole) == pytest.approx(1, abs=1e-5)
    assert server.post("/v1/embeddings", {"input": ids + ids[:2]}).json()["error"]["n_ctx"] == 512


def test_pooling_by_the_mean_is_another_vector(serve: Callable[..., ServerProcess], server: ServerProcess) -> None:
    mean = serve("-c", "512", "--embeddings", "--pooling", "mean")
    assert mean.http.get("/props").json()["pooling"] == "mean"
    assert server.http.get("/props").json()["pooling"] == "last"
    same = (embedded(mean, TEXTS) * embedded(server, TEXTS)).sum(axis=1)
    assert np.all(same < 0.99)
    assert mean.ok("/completion", PROMPT)["content"]
