"""Vectors of pictures and words against the rows of a plain computation, for each pooling and kind of projector."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from llamabox.bindings.context import Context, ContextParams, Pooling
from llamabox.bindings.media.chunk import ChunkRows, MediaChunk
from llamabox.bindings.media.projector import Part, Projector, ProjectorParams
from llamabox.bindings.model import Model
from llamabox.engine.batch import Batch, MediaRows, Run
from llamabox.engine.embedding.embedder import Embedder
from llamabox.engine.embedding.media_passages import MediaPassage
from llamabox.engine.embedding.passages import Passage
from llamabox.engine.events import Vector
from llamabox.engine.request import Media, Picture, Prompt, Words
from llamabox.workers.text.embedding.pooler import LlamaPooler
from llamabox.workers.text.loading.contexts import open_embedding
from llamabox.workers.text.runner import LlamaRunner
from tests.fakes import FakeEncoder
from tests.models.media.colours import square
from tests.observed import model as demo_model
from tests.observed import native

N_CTX = 384
QUICK_ROWS = 192
Kind = Literal["causal", "not causal", "M-RoPE"]
Rows = dict[bytes, ChunkRows]
Floats = NDArray[np.float32]

PICTURE = Picture(96, 64, square("red", "blue", 96)[: 3 * 96 * 64])
PROMPTS: list[list[Part]] = [
    ["A photo of ", PICTURE, " and of another square: ", Picture(96, 96, square("green", "white")), " That is all."],
    [PICTURE],
    ["Words before ", PICTURE],
]
"""Their words are some, none, or in front alone."""


@pytest.mark.parametrize(
    ("kind", "poolings"),
    [
        ("causal", [Pooling.LAST, Pooling.MEAN, Pooling.CLS, Pooling.NONE]),
        ("not causal", [Pooling.MEAN]),
        ("M-RoPE", [Pooling.LAST]),
    ],
)
def test_a_vector_is_what_its_rows_make(
    kind: Kind, poolings: list[Pooling], mmproj: Path, mmproj_noncausal: Path, mrope: tuple[Path, Path]
) -> None:
    with ExitStack() as owned:
        model = owned.enter_context(Model.load(native(), mrope[0])) if kind == "M-RoPE" else demo_model()
        file = {"causal": mmproj, "not causal": mmproj_noncausal, "M-RoPE": mrope[1]}[kind]
        projector = owned.enter_context(Projector(model, file, ProjectorParams(n_threads=1)))
        rows: Rows = {}
        prompts = [_prompt(projector, parts, rows) for parts in PROMPTS[: 1 if len(poolings) == 1 else None]]
        plain = [_plain_rows(model, prompt, rows) for prompt in prompts]
        for pooling in poolings:
            found = _vectors(model, pooling, prompts, rows)
            for prompt, vector, each in zip(prompts, found, plain, strict=True):
                expected = _pooled(each, pooling)
                assert vector.shape == expected.shape, (pooling, prompt)
                assert _likeness(vector, expected) > 0.999, (pooling, prompt)
        assert _likeness(plain[0][-1], plain[0][-2]) < 0.99, "the measure tells nothing apart"


def _prompt(projector: Projector, parts: Sequence[Part], rows: Rows) -> Prompt:
    """With its chunks encoded."""
    prompt: list[Words | Media] = []
    for piece in projector.tokenize(parts, add_special=True):
        if isinstance(piece, MediaChunk):
            with piece:
                [rows[piece.key]] = projector.encode([piece])
            prompt.append(Media(piece.key, piece.n_cells, piece.n_positions, piece.is_causal))
        else:
            prompt.append(Words(piece))
    return tuple(prompt)


def _plain_rows(model: Model, prompt: Prompt, rows: Rows) -> Floats:
    """The vector of each row, computed by the runner of texts, a segment at a time."""
    params = ContextParams(n_ctx=N_CTX, n_batch=192, n_ubatch=192, n_seq_max=1, n_threads=1, embeddings=True)
    with Context(model, params) as context:
        runner = LlamaRunner(context, rows_of=lambda media: rows[media.key])
        found: list[Floats] = []
        position = 0

        def compute(run: Run) -> None:
            batch = Batch()
            batch.add(run)
            runner.execute(batch)
            found.extend(np.frombuffer(context.row_vector(i, model.n_embd), "<f4") for i in range(len(run)))

        for segment in prompt:
            if isinstance(segment, Words):
                compute(Run(0, position, segment.tokens, segment.n_cells))
                position += segment.n_cells
            else:
                compute(Run(0, position, MediaRows(segment, 0, segment.n_cells), segment.n_cells))
                position += segment.n_positions
        return np.array(found)


def _vectors(model: Model, pooling: Pooling, prompts: Sequence[Prompt], rows: Rows) -> list[Floats]:
    """Ours, of passages that are cut into batches of a few rows, with a text between them."""
    encoder = FakeEncoder()
    params = ContextParams(n_ctx=N_CTX, n_batch=192, n_ubatch=192, n_seq_max=1, n_threads=1)
    with open_embedding(model, params, pooling, n_ctx=N_CTX, quick_rows=QUICK_ROWS) as context:
        pooler = LlamaPooler(context, rows_of=lambda media: rows[media.key])
        embedder = Embedder(pooler, n_ctx=N_CTX, n_rows=12, encoder=encoder)
        passages = [MediaPassage("r", i, prompt, {}) for i, prompt in enumerate(prompts)]
        assert not embedder.submit([Passage("text", 0, (5, 6, 7))], 1, passages)
        made: dict[int, Floats] = {}
        while not embedder.is_idle:
            for one in embedder.step():
                assert isinstance(one, Vector), one
                if one.request_id == "r":
                    made[one.index] = np.frombuffer(one.data, "<f4").reshape(-1, model.n_embd)
        return [made[i] for i in range(len(prompts))]


def _pooled(rows: Floats, pooling: Pooling) -> Floats:
    match pooling:
        case Pooling.LAST:
            return rows[-1:]
        case Pooling.CLS:
            return rows[:1]
        case Pooling.MEAN:
            return np.asarray(rows.mean(axis=0, keepdims=True))
    return rows


def _likeness(one: Floats, other: Floats) -> float:
    """The least cosine of two rows."""
    one, other = np.atleast_2d(one), np.atleast_2d(other)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / lengths).min())
