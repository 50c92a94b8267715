"""The form of vectors: what the request says, else the server's option, else what suits the model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llamabox.options.commandline import compose, parse
from llamabox.server.api.embeddings.route import parse_format
from tests.server.fake_client import INFO


@pytest.mark.parametrize(
    ("words", "pooling", "body", "norm"),
    [
        ("", "mean", {}, 2),
        ("", "none", {}, -1),
        ("", "rank", {}, -1),
        ("--embd-normalize 1", "mean", {}, 1),
        ("--embd-normalize 0", "none", {}, 0),
        ("--embd-normalize -1", "mean", {}, -1),
        ("--embd-normalize 1", "mean", {"embd_normalize": 3}, 3),
    ],
)
def test_how_vectors_are_scaled(words: str, pooling: str, body: dict[str, int], norm: int) -> None:
    *_, hosted = compose(parse(words.split(), {}))
    info = replace(INFO, pooling=pooling, n_vector=8)
    assert parse_format(body, hosted.embd_normalize, info).norm == norm
