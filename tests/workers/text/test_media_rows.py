"""The runner with rows of pictures and sounds: they are computed as they would be alone, and nobody else's change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from llamabox.bindings.context import Context, ContextParams
from llamabox.bindings.media.chunk import ChunkPositions, ChunkRows, MediaChunk
from llamabox.bindings.media.projector import Part, Projector, ProjectorParams
from llamabox.bindings.model import Model
from llamabox.engine.batch import Batch, MediaRows, Run
from llamabox.engine.request import Media, Picture, Sound
from llamabox.workers.text.runner import LlamaRunner
from tests.models.media import tones
from tests.models.media.colours import square
from tests.observed import model as demo_model
from tests.observed import native

SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
ASKED = "<|im_start|>user\n{}", "<|im_end|>\n<|im_start|>assistant\n"

N_BATCH = 300

Logits = NDArray[np.float32]


class Seer:
    """A model with its projector, and a runner over a context of two slots."""

    def __init__(self, model: Model, projector: Projector) -> None:
        self.model = model
        self.projector = projector
        self.context = Context(
            model, ContextParams(n_ctx=1024, n_batch=N_BATCH, n_ubatch=N_BATCH, n_seq_max=2, n_threads=1)
        )
        self.rows: dict[bytes, ChunkRows] = {}
        self.runner = LlamaRunner(self.context, rows_of=lambda media: self.rows[media.key])

    def prepared(self, *parts: Part) -> list[list[int] | Media]:
        """A prompt's stretches, its media encoded."""
        found: list[list[int] | Media] = []
        for piece in self.projector.tokenize(parts, add_special=True):
            if isinstance(piece, MediaChunk):
                [self.rows[piece.key]] = self.projector.encode([piece])
                found.append(Media(piece.key, piece.n_cells, piece.n_positions, piece.is_causal))
                piece.close()
            else:
                found.append(list(piece))
        return found

    def compute(self, *runs: Run) -> None:
        batch = Batch()
        for run in runs:
            batch.add(run)
        self.runner.execute(batch)

    def prefill(self, stretches: Sequence[list[int] | Media], *, cuts: Sequence[int] = (), seq_id: int = 0) -> Logits:
        """The logits behind a prompt, its media in pieces that end at `cuts`. Leaves `self.position` behind it."""
        self.position = 0
        for stretch in stretches:
            is_last = stretch is stretches[-1]
            if isinstance(stretch, Media):
                ends = [0, *cuts, stretch.n_cells]
                for start, stop in pairwise(ends):
                    n_outputs = int(is_last and stop == stretch.n_cells)
                    self.compute(Run(seq_id, self.position, MediaRows(stretch, start, stop), n_outputs))
                n_rows, n_positions = ends[-1] - ends[-2], stretch.n_positions
            else:
                self.compute(Run(seq_id, self.position, stretch, int(is_last)))
                n_rows = n_positions = len(stretch)
            self.position += n_positions
        return self.context.logits(n_rows - 1).copy()

    def answer(self, *parts: Part, n_most: int = 24) -> str:
        """What the model says, the likeliest token at each place."""
        self.context.memory.clear()
        logits = self.prefill(self.prepared(*parts))
        tokens: list[int] = []
        while len(tokens) < n_most and not self.model.vocab.is_eog(token := int(logits.argmax())):
            tokens.append(token)
            self.compute(Run(0, self.position, [token], 1))
            self.position += 1
            logits = self.context.logits(0)
        return self.model.vocab.detokenize(tokens, remove_special=False, unparse_special=True).decode()


@pytest.fixture(scope="module")
def seer(mmproj: Path) -> Iterator[Seer]:
    with Projector(demo_model(), mmproj, ProjectorParams()) as projector:
        made = Seer(demo_model(), projector)
        with made.context:
            yield made


@pytest.fixture(scope="module")
def noncausal(mmproj_noncausal: Path) -> Iterator[Seer]:
    with Projector(demo_model(), mmproj_noncausal, ProjectorParams()) as projector:
        made = Seer(demo_model(), projector)
        with made.context:
            yield made


@pytest.fixture(scope="module")
def turned(mrope: tuple[Path, Path]) -> Iterator[Seer]:
    """With M-RoPE."""
    with Model.load(native(), mrope[0]) as model, Projector(model, mrope[1], ProjectorParams()) as projector:
        made = Seer(model, projector)
        with made.context:
            yield made


def picture(figure: str = "red", background: str = "blue") -> Picture:
    return Picture(96, 96, square(figure, background))


def asked(question: str) -> tuple[str, str]:
    before, behind = ASKED
    return SYSTEM + before.format(question), behind


@pytest.mark.parametrize(("figure", "background"), [("red", "blue"), ("green", "yellow"), ("white", "black")])
def test_a_model_sees_what_a_picture_shows(seer: Seer, figure: str, background: str) -> None:
    before, behind = asked("What color is the square?")
    answer = seer.answer(before, picture(figure, background), behind)
    assert f"{figure} square" in answer
    assert f"{background} background" in answer


def test_a_model_hears_what_is_said(seer: Seer) -> None:
    before, behind = asked("What is the secret word?")
    sound = Sound(tones.RATE, tones.spoken("The", " secret", " word", " is", " banana", "."))
    assert "banana" in seer.answer(before, sound, behind)


def test_a_text_is_what_it_is_without_a_projector_with_m_rope_too(turned: Seer, seer: Seer) -> None:
    """In a text all sections of a position are one number: the model turns its keys as the demo model does."""
    before, behind = ASKED
    texts = [one.answer(before.format("What is the capital of France?") + behind) for one in (turned, seer)]
    assert texts == ["The capital of France is Paris."] * 2


@pytest.mark.parametrize("kind", ["seer", "turned"])
@pytest.mark.parametrize("cuts", [(1,), (3, 7), (5, 6, 11)])
def test_a_picture_in_pieces_is_the_picture_to_the_bit(
    request: pytest.FixtureRequest, kind: str, cuts: tuple[int, ...]
) -> None:
    one: Seer = request.getfixturevalue(kind)
    before, behind = asked("What color is the square?")
    prompt = one.prepared(before, picture(), behind)
    one.context.memory.clear()
    whole = one.prefill(prompt)
    one.context.memory.clear()
    assert np.array_equal(one.prefill(prompt, cuts=cuts), whole)


def test_rows_and_columns_count_under_m_rope(turned: Seer) -> None:
    """The same rows in one column are another picture; text behind them goes on after the longer side."""
    before, behind = asked("What color is the square?")
    prompt = turned.prepared(before, picture(), behind)
    [media] = [stretch for stretch in prompt if isinstance(stretch, Media)]
    assert (media.n_cells, media.n_positions) == (36, 6)
    turned.context.memory.clear()
    square_logits = turned.prefill(prompt)
    assert turned.context.memory.seq_pos_max(0) == turned.position - 1
    rows = turned.rows[media.key]
    assert rows.positions is not None
    in_one_column = np.broadcast_to(np.arange(36, dtype=np.int32) // 6, (4, 36))
    turned.rows[media.key] = ChunkRows(rows.embeddings, ChunkPositions(in_one_column, rows.positions.moves))
    turned.context.memory.clear()
    assert not np.array_equal(turned.prefill(prompt), square_logits)
    turned.rows[media.key] = rows


@pytest.mark.parametrize("kind", ["seer", "turned"])
def test_pictures_of_two_sequences_in_a_batch_are_what_they_are_alone(
    request: pytest.FixtureRequest, kind: str
) -> None:
    one: Seer = request.getfixturevalue(kind)
    media = [stretch for parts in (picture(), picture("green")) for stretch in one.prepared(parts)[-2:]]
    chunks = [stretch for stretch in media if isinstance(stretch, Media)]
    runs = [Run(i, 0, MediaRows(chunk, 0, chunk.n_cells), 1) for i, chunk in enumerate(chunks)]
    assert len(runs) == 2
    alone = []
    for run in runs:
        one.context.memory.clear()
        one.compute(run)
        alone.append(one.context.logits(len(run) - 1).copy())
    one.context.memory.clear()
    one.compute(*runs)
    for logits, row in zip(alone, (len(runs[0]) - 1, len(runs[0]) + len(runs[1]) - 1), strict=True):
        assert np.array_equal(one.context.logits(row), logits)


def test_cells_that_attend_to_one_another_do_so_and_texts_do_not(noncausal: Seer) -> None:
    """The first cell of a picture depends on the last one; behind it a text is computed as ever."""
    before, behind = asked("What color is the square?")
    prompt = noncausal.prepared(before, picture(), behind)
    [media] = [stretch for stretch in prompt if isinstance(stretch, Media)]
    assert not media.is_causal
    noncausal.context.memory.clear()
    logits = noncausal.prefill(prompt)
    causal = [Media(one.key, one.n_cells, one.n_positions) if isinstance(one, Media) else one for one in prompt]
    noncausal.context.memory.clear()
    assert not np.array_equal(noncausal.prefill(causal), logits)

    text = noncausal.prepared("".join(asked("What is the capital of France?")))
    noncausal.context.memory.clear()
    alone = noncausal.prefill(text)
    noncausal.context.memory.clear()
    noncausal.prefill(prompt)
    assert np.array_equal(noncausal.prefill(text, seq_id=1), alone)


def test_a_text_beside_pictures_is_what_it_is_alone(seer: Seer) -> None:
    before, behind = asked("What color is the square?")
    prompt = seer.prepared(before, picture(), behind)
    text = seer.prepared("".join(asked("What is the capital of France?")))
    seer.context.memory.clear()
    alone = seer.prefill(text, seq_id=1)
    seer.context.memory.clear()
    seer.prefill(prompt)
    assert np.array_equal(seer.prefill(text, seq_id=1), alone)
