"""--mmproj and what belongs to it: what a loaded model says that it takes, and where the projector is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llamabox.bindings import backend, ffi
from llamabox.bindings.backend import Device
from llamabox.bindings.media.chunk import ChunkRows, MediaChunk
from llamabox.bindings.media.projector import Projector
from llamabox.errors import EncodeError, ModelLoadError, OptionsError
from llamabox.wire.text_config import MediaInfo, TextConfig
from llamabox.workers.text.loading.loader import TextModel
from llamabox.workers.text.loading.projector import SPARE, UNTRIED, projector_params
from tests.models.media import tones
from tests.observed import composed, native


def load(config: TextConfig) -> TextModel:
    return TextModel.load(native(), config, lambda _: None)


@pytest.fixture
def small() -> TextConfig:
    return composed("-c", "512", "-b", "64", "-t", "1", "--no-warmup")[0]


def test_the_file_says_what_the_model_takes(small: TextConfig, mmproj: Path, mmproj_noncausal: Path) -> None:
    with load(small) as text:
        assert text.info().media is None
    with load(replace(small, mmproj=str(mmproj))) as text:
        assert text.info().media == MediaInfo(
            has_vision=True, has_audio=True, audio_rate=tones.RATE, max_image_pixels=4 * 64 * 64
        )
    with load(replace(small, mmproj=str(mmproj_noncausal), image_max_tokens=80)) as text:
        media = text.info().media
        assert media is not None
        assert (media.has_vision, media.has_audio, media.audio_rate) == (True, False, 0)
        assert 4 * 80 * 64 / 2 < media.max_image_pixels <= 4 * 80 * 64 * 2


@pytest.mark.parametrize("n_most", [80, 300])
def test_what_is_computed_at_once_holds_the_largest_picture(
    small: TextConfig, mmproj_noncausal: Path, n_most: int
) -> None:
    """Where its cells attend to one another. libllama ends the process where it does not."""
    with load(replace(small, mmproj=str(mmproj_noncausal), image_max_tokens=n_most)) as text:
        assert text.projector is not None
        largest = text.projector.largest_picture  # of a shape so long that it has more than it should
        assert n_most / 2 < largest <= text.contexts.main.n_ubatch < largest * (1 + 1 / UNTRIED) + SPARE
        assert text.engine.config.n_ctx == 512


def test_pictures_that_are_causal_need_no_larger_batch(small: TextConfig, mmproj: Path) -> None:
    with load(replace(small, n_batch=12, n_ubatch=12, mmproj=str(mmproj))) as text:
        assert text.contexts.main.n_ubatch == 12


def test_what_cannot_be_used_is_refused(small: TextConfig, mmproj: Path) -> None:
    with pytest.raises(ModelLoadError, match="it is a llama model"):
        load(replace(small, mmproj=small.model))
    with pytest.raises(ModelLoadError, match="name it with -mm"):
        load(replace(small, model=str(mmproj)))
    with pytest.raises(OptionsError, match="--image-min-tokens 9 is more than --image-max-tokens 8"):
        load(replace(small, mmproj=str(mmproj), image_min_tokens=9, image_max_tokens=8))


def test_a_gpu_computes_it_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of this machine, of those that --device names; not one of an RPC server."""
    names = (("CPU", "cpu", "CPU"), ("RPC0", "gpu", "RPC"), ("CUDA0", "gpu", "CUDA"), ("CUDA1", "gpu", "CUDA"))

    def devices(native: ffi.Native) -> list[Device]:
        return [Device(name, "", kind, by, memory_free=1, memory_total=1) for name, kind, by in names]

    assert projector_params(composed()[0], native()).offload is False
    monkeypatch.setattr(backend, "devices", devices)
    wanted: dict[tuple[str, ...], str | None] = {
        (): "CUDA0",
        ("-mg", "1"): "CUDA1",
        ("--device", "CUDA1"): "CUDA1",
        ("--no-mmproj-offload",): None,
        ("--no-mmproj-offload", "--mmproj-offload"): "CUDA0",
        ("--device", "none"): None,
    }
    for words, device in wanted.items():
        params = projector_params(composed(*words)[0], native())
        assert (params.device, params.offload) == (device, device is not None), words


def test_its_threads_are_those_of_prompts() -> None:
    assert projector_params(composed("-t", "2", "-tb", "5")[0], native()).n_threads == 5


@pytest.mark.parametrize("kind", ["mmproj", "mmproj_noncausal"])
def test_it_is_tried_before_the_first_request(
    small: TextConfig, request: pytest.FixtureRequest, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images and sounds are encoded and computed once, and nothing of them stays. What fails ends the load."""
    config = replace(small, mmproj=str(request.getfixturevalue(kind)), warmup=True)
    with load(config) as text:
        assert text.contexts.main.memory.seq_pos_max(0) == -1
    monkeypatch.setattr(Projector, "encode", failing)
    with pytest.raises(ModelLoadError, match="cannot be used: encoding an image failed"):
        load(config)


def failing(projector: Projector, chunks: list[MediaChunk]) -> list[ChunkRows]:
    raise EncodeError("encoding an image failed")
