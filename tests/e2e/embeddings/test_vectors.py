"""An encoder's vectors against a computation in numpy that shares nothing with ours, and against themselves."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.e2e.server_process import ServerProcess
from tests.models.bert_oracle import BertOracle
from tests.models.minilm import Encoder
from tests.models.texts import varied_texts

Vectors = NDArray[np.float32]


@pytest.fixture(scope="module")
def server(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("embeddings") / "log"
    with ServerProcess(log, "-m", str(minilm), "--embeddings") as started:
        yield started


@pytest.fixture(scope="module")
def oracle(encoder: Encoder) -> BertOracle:
    return BertOracle(encoder)


@pytest.fixture(scope="module")
def texts(oracle: BertOracle) -> list[str]:
    return varied_texts(lambda text: len(oracle.tokenizer.content(text)))


def embedded(server: ServerProcess, texts: list[str], **fields: Any) -> Vectors:
    data = server.ok("/v1/embeddings", {"input": texts, **fields})["data"]
    assert [item["index"] for item in data] == list(range(len(texts)))
    rows = [item["embedding"] for item in data]
    if fields.get("encoding_format") == "base64":
        rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    return np.array(rows, np.float32)


@pytest.fixture(scope="module")
def together(server: ServerProcess, texts: list[str]) -> Vectors:
    """The vectors of all texts, of one request."""
    return embedded(server, texts)


def test_a_hundred_texts_of_all_scripts_and_lengths(
    server: ServerProcess, oracle: BertOracle, texts: list[str], together: Vectors
) -> None:
    floats = together
    assert np.linalg.norm(floats, axis=1) == pytest.approx(1, abs=1e-5)
    expected = np.array([oracle.embedding(text) for text in texts])
    assert (floats * expected).sum(axis=1).min() >= 0.9999
    encoded = embedded(server, texts[:10], encoding_format="base64")
    assert np.abs(encoded - floats[:10]).max() <= 1e-5


def test_a_vector_does_not_depend_on_what_else_is_computed(
    server: ServerProcess, texts: list[str], together: Vectors
) -> None:
    backwards = embedded(server, texts[::-1])[::-1]
    assert np.abs(backwards - together).max() <= 1e-5
    for index in (0, 30, 60, 99):
        [alone] = embedded(server, [texts[index]])
        assert np.abs(alone - together[index]).max() <= 1e-5
