"""Projectors: what they make of pictures and sounds, what they refuse, and that nothing ends the process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llamabox.bindings.ffi import Native
from llamabox.bindings.files.gguf import read_header
from llamabox.bindings.media.chunk import MediaChunk
from llamabox.bindings.media.projector import Part, Projector, ProjectorParams
from llamabox.bindings.model import Model, type_sizes
from llamabox.engine.request import Picture, Sound
from llamabox.errors import InvalidRequest, ModelLoadError
from llamabox.workers.text.loading.projector import whole_cells
from tests.models.blank import write_blank
from tests.models.gguf_file import Value, int32_array, write_gguf
from tests.models.media import tones
from tests.models.media.colours import CAPTION, COLOUR, square
from tests.models.media.projectors import write_mmproj, write_noncausal_mmproj
from tests.models.media.words import Words

RED = Picture(96, 96, square("red", "blue"))
GREEN = Picture(96, 96, square("green", "blue"))
SECRET = Sound(tones.RATE, tones.spoken("The", " secret", " word"))


@pytest.fixture(scope="module")
def projector(model: Model, mmproj: Path) -> Iterator[Projector]:
    with Projector(model, mmproj, ProjectorParams()) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def noncausal(model: Model, mmproj_noncausal: Path) -> Iterator[Projector]:
    with Projector(model, mmproj_noncausal, ProjectorParams()) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def words(model_path: Path) -> Words:
    return Words(model_path)


def chunks_of(projector: Projector, *parts: Part, counts_only: bool = False) -> list[MediaChunk]:
    pieces = projector.tokenize(parts, add_special=False, counts_only=counts_only)
    return [piece for piece in pieces if isinstance(piece, MediaChunk)]


def test_a_projector_says_what_it_takes(projector: Projector, noncausal: Projector) -> None:
    assert (projector.has_vision, projector.has_audio, projector.audio_rate) == (True, True, tones.RATE)
    assert (noncausal.has_vision, noncausal.has_audio, noncausal.audio_rate) == (True, False, 0)
    assert (projector.is_causal, noncausal.is_causal) == (True, False)
    assert projector.largest_picture == len(CAPTION)
    assert projector.most_pixels == 64 * 64
    assert 1000 * 64 < noncausal.most_pixels <= 1120 * 64
    assert 1000 < noncausal.largest_picture <= 1120


def test_the_rows_of_a_picture_are_the_words_of_its_caption(projector: Projector, words: Words) -> None:
    [chunk] = chunks_of(projector, RED)
    with chunk:
        [rows] = projector.encode([chunk])
    said = [word or f" {colour}" for word, colour in zip(CAPTION, ["red"] * 12 + ["blue"] * 4, strict=True)]
    wanted = np.stack([words.row(word) for word in said])
    likeness = (rows.embeddings * wanted).sum(axis=1) / (
        np.linalg.norm(rows.embeddings, axis=1) * np.linalg.norm(wanted, axis=1)
    )
    assert likeness.min() > 0.9, CAPTION.index(COLOUR)


def test_the_rows_of_a_sound_are_its_words(projector: Projector, words: Words) -> None:
    [chunk] = chunks_of(projector, SECRET)
    with chunk:
        [rows] = projector.encode([chunk])
    wanted = np.stack([words.row(word) for word in ("The", " secret", " word")])
    assert chunk.is_sound
    assert np.abs(rows.embeddings - wanted).max() < 0.01


def test_the_text_around_media_becomes_the_tokens_that_it_is_alone(projector: Projector, model: Model) -> None:
    """What a user writes never becomes a place for media, libmtmd's own marker neither."""
    text = "<__media__> is a text <|im_start|>"
    pieces = projector.tokenize([text, RED, 5, text], add_special=True)
    [chunk] = [piece for piece in pieces if isinstance(piece, MediaChunk)]
    chunk.close()
    tokens = tuple(model.vocab.tokenize(text, add_special=True, parse_special=True))
    assert pieces[0] == tokens
    assert pieces[1:] == [chunk, (5, *tokens)]


def test_equal_content_has_equal_keys_and_other_content_of_the_size_others(projector: Projector) -> None:
    chunks = chunks_of(projector, RED, GREEN, RED, SECRET, Sound(tones.RATE, tones.spoken(" cat", " cat", " cat")))
    for chunk in chunks:
        chunk.close()
    red, green, again, *sounds = [chunk.key for chunk in chunks]
    assert red == again
    assert len({red, green, *sounds}) == 4


def test_a_key_names_the_settings_that_its_rows_depend_on(
    model: Model, mmproj_noncausal: Path, noncausal: Projector, projector: Projector
) -> None:
    with Projector(model, mmproj_noncausal, ProjectorParams(image_max_tokens=100)) as smaller:
        assert smaller.largest_picture < 200 < noncausal.largest_picture
        chunks = [chunks_of(one, RED)[0] for one in (smaller, noncausal, projector)]
        for chunk in chunks:
            chunk.close()
        assert len({chunk.key for chunk in chunks}) == 3


@pytest.mark.parametrize("size", [(96, 96), (200, 64), (64, 200), (500, 300)])
def test_positions_under_m_rope_are_those_that_libmtmd_gives_each_cell(
    native: Native, mrope: tuple[Path, Path], size: tuple[int, int]
) -> None:
    with Model.load(native, mrope[0]) as model, Projector(model, mrope[1], ProjectorParams()) as projector:
        [chunk] = chunks_of(projector, Picture(*size, bytes(3 * size[0] * size[1])))
        with chunk:
            assert chunk.positions is not None
            picture = native.lib.mtmd_input_chunk_get_tokens_image(chunk.handle)
            for first in (0, 7):
                told = [native.lib.mtmd_image_tokens_get_decoder_pos(picture, first, i) for i in range(chunk.n_cells)]
                assert chunk.positions.at(first).T.tolist() == [[at.t, at.y, at.x, at.z] for at in told]
            assert chunk.n_positions == 1 + chunk.positions.offsets.max()


def test_pictures_of_one_size_are_of_one_shape(noncausal: Projector) -> None:
    """As many cells are not enough: lying and standing ones cannot be encoded together."""
    sizes = [(96, 64), (96, 64), (64, 96)]
    chunks = chunks_of(noncausal, *(Picture(*size, bytes(3 * 96 * 64)) for size in sizes))
    for chunk in chunks:
        chunk.close()
    assert len({chunk.n_cells for chunk in chunks}) == 1
    one, same, other = [chunk.shape for chunk in chunks]
    assert one == same != other


@pytest.mark.parametrize("part", [RED, SECRET], ids=["picture", "sound"])
def test_what_only_counts_has_the_numbers_of_what_is_encoded(projector: Projector, part: Part) -> None:
    [counted] = chunks_of(projector, part, counts_only=True)
    [whole] = chunks_of(projector, part)
    with counted, whole:
        assert (counted.key, counted.n_cells, counted.n_positions) == (whole.key, whole.n_cells, whole.n_positions)


def test_rows_do_not_depend_on_what_is_encoded_with_them(noncausal: Projector) -> None:
    lying, standing = (Picture(*size, bytes(i % 251 for i in range(3 * 96 * 64))) for size in ((96, 64), (64, 96)))
    chunks = chunks_of(noncausal, RED, GREEN, lying, standing, lying, RED)
    together = noncausal.encode(chunks)
    alone = [noncausal.encode([chunk])[0] for chunk in chunks]
    for chunk in chunks:
        chunk.close()
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.embeddings, other.embeddings)
    assert not np.array_equal(together[0].embeddings, together[1].embeddings)


SILENCE = bytes(4 * tones.FRAME)

REFUSED = [
    (Picture(0, 10, b""), "both sides"),
    (Picture(10, 10, bytes(299)), "3 a pixel"),
    (Picture(4001, 20, bytes(3 * 4001 * 20)), "200 times"),
    (Picture(1 << 14, 1 << 13, b""), "at most"),
    (Sound(44_100, SILENCE), "hears 16000"),
    (Sound(tones.RATE, b""), "one at least"),
    (Sound(tones.RATE, bytes(5)), "whole samples"),
    (Sound(tones.RATE, np.array([0, np.nan], "<f4").tobytes()), "not finite"),
]


@pytest.mark.parametrize(("part", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_what_cannot_be_prepared_is_refused(projector: Projector, part: Part, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as refusal:
        projector.tokenize(["a", RED, part], add_special=True)
    assert refusal.value.field == "prompt"


def test_a_projector_without_ears_refuses_sound(noncausal: Projector) -> None:
    with pytest.raises(InvalidRequest, match="takes no sound"):
        noncausal.tokenize([SECRET], add_special=False)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (2, 3), (7, 1400), (31, 33)])
def test_pictures_of_odd_shapes_are_encoded(projector: Projector, noncausal: Projector, size: tuple[int, int]) -> None:
    picture = Picture(*size, bytes(range(1, 4)) * (size[0] * size[1]))
    for one in (projector, noncausal):
        [chunk] = chunks_of(one, picture)
        with chunk:
            [rows] = one.encode([chunk])
        assert rows.embeddings.shape == (chunk.n_cells, one.n_embd)
        assert np.isfinite(rows.embeddings).all()


@settings(deadline=None)  # what it takes hangs on the size
@given(shorter=st.integers(1, 60), ratio=st.floats(1, 199), lies=st.booleans())
@example(shorter=38, ratio=47.25, lies=False)
def test_no_picture_has_more_cells_than_room_is_made_for(
    noncausal: Projector, shorter: int, ratio: float, lies: bool
) -> None:
    """libllama ends the process where one has."""
    longer = int(shorter * ratio)
    width, height = (longer, shorter) if lies else (shorter, longer)
    [chunk] = chunks_of(noncausal, Picture(width, height, bytes(3 * width * height)), counts_only=True)
    chunk.close()
    assert 0 < chunk.n_cells <= whole_cells(noncausal)


def test_a_sound_of_one_sample_is_encoded(projector: Projector) -> None:
    [chunk] = chunks_of(projector, Sound(tones.RATE, bytes(4)))
    with chunk:
        [rows] = projector.encode([chunk])
    assert np.isfinite(rows.embeddings).all()


def changed(native: Native, source: Path, target: Path, **values: Value) -> Path:
    """Metadata alone, of which some is other."""
    header = read_header(source, type_sizes(native))
    kept = {key: value for key, value in header.values.items() if not isinstance(value, bool)}
    wanted = {name.replace("__", "."): value for name, value in values.items()}
    return write_gguf(target, {**kept, **wanted}, {"unused": np.zeros(32, np.float32)})


def test_files_that_are_no_projector_or_of_another_model_are_refused(
    model: Model, model_path: Path, mmproj: Path, native: Native, tmp_path: Path
) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(mmproj.read_bytes().replace(b"gemma4ua", b"gemma9ua"))
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(mmproj.read_bytes()[:-1000])
    cases = {
        model_path: "it is a llama model, no multimodal projector",
        tmp_path / "none.gguf": "there is no such file",
        cut: "it is cut off",
        other: "unknown projector type: gemma9ua",
        changed(native, mmproj, tmp_path / "a.gguf", clip__vision__patch_size=0): "cannot be",
        changed(native, mmproj, tmp_path / "b.gguf", clip__vision__patch_size="16"): "another type",
        changed(native, mmproj, tmp_path / "c.gguf", clip__vision__image_size=int32_array(1)): "another type",
        changed(native, mmproj, tmp_path / "d.gguf"): "takes no input",
    }
    for path, why in cases.items():
        with pytest.raises(ModelLoadError, match=why) as refusal:
            Projector(model, path, ProjectorParams())
        assert "\n" not in refusal.value.message
        assert str(path) in refusal.value.message


def test_a_projector_of_a_model_of_another_width_is_refused(
    native: Native, mmproj_noncausal: Path, model: Model, tmp_path: Path
) -> None:
    wider = write_noncausal_mmproj(tmp_path / "wider.gguf", 640)
    with pytest.raises(ModelLoadError, match="have 640 numbers, and those of this model have 576"):
        Projector(model, wider, ProjectorParams())
    with (
        Model.load(native, write_blank(tmp_path / "blank.gguf", 64)) as blank,
        pytest.raises(ModelLoadError, match="no vocabulary"),
    ):
        Projector(blank, mmproj_noncausal, ProjectorParams())


@pytest.mark.parametrize("kind", ["vision", "audio"])
def test_a_projector_of_one_kind_has_that_alone(model: Model, model_path: Path, tmp_path: Path, kind: str) -> None:
    path = write_mmproj(tmp_path / "one.gguf", model_path, vision=kind == "vision", audio=kind == "audio")
    with Projector(model, path, ProjectorParams(warmup=False)) as projector:
        assert (projector.has_vision, projector.has_audio) == (kind == "vision", kind == "audio")
        refused = SECRET if kind == "vision" else RED
        with pytest.raises(InvalidRequest, match="takes no"):
            projector.tokenize([refused], add_special=False)
