"""The projector that --mmproj names, beside its model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from llamabox.bindings import backend
from llamabox.bindings.context import Context, FlashAttention
from llamabox.bindings.ffi import Native
from llamabox.bindings.media.chunk import ChunkRows, MediaChunk
from llamabox.bindings.media.projector import Projector, ProjectorParams
from llamabox.bindings.model import Model
from llamabox.bindings.rpc.devices import RPC
from llamabox.engine.batch import MediaRows, Run
from llamabox.engine.request import Media, Picture, Sound
from llamabox.errors import DecodeError, EncodeError, ModelLoadError, OptionsError
from llamabox.wire.text_config import MediaInfo, TextConfig
from llamabox.workers.text.loading.threads import n_threads
from llamabox.workers.text.media.rows import decode_media

logger = logging.getLogger(__name__)

SPARE = 32
"""Batches are a multiple of it."""

UNTRIED = 64
"""A picture of a shape that was not tried may have more cells than all that were: by less than this part of them."""

DETAIL = 4
"""Pixels of a picture that are of use, for each that the projector makes of them: a picture may lose its proportions
there, and is made smaller for a second time.
"""

SMALL_SIDE, LARGE_SIDE = 64, 2048
"""Pixels of the sides of the images that a projector is tried with."""


def load_projector(config: TextConfig, model: Model) -> Projector | None:
    """The projector of the configuration; None where it names none. Raises ModelLoadError or OptionsError."""
    if config.mmproj is None:
        return None
    if 0 < config.image_max_tokens < config.image_min_tokens:
        raise OptionsError(
            f"--image-min-tokens {config.image_min_tokens} is more than --image-max-tokens {config.image_max_tokens}"
        )
    projector = Projector(model, config.mmproj, projector_params(config, model.native))
    kinds = [kind for kind, there in (("images", projector.has_vision), ("sound", projector.has_audio)) if there]
    logger.info("the model takes %s: %s", " and ".join(kinds), config.mmproj)
    return projector


def projector_params(config: TextConfig, native: Native) -> ProjectorParams:
    """Its threads are as many as those of prompts, unless it has a number of its own."""
    device = _device(config, native)
    return ProjectorParams(
        n_threads=config.mmproj_threads or n_threads(config),
        offload=device is not None,
        device=device,
        flash_attn=FlashAttention(config.flash_attn),
        image_min_tokens=config.image_min_tokens,
        image_max_tokens=config.image_max_tokens,
    )


def _device(config: TextConfig, native: Native) -> str | None:
    """The GPU of this machine that computes the projector; None for the CPU. RPC servers have the model alone."""
    if not config.mmproj_offload or config.devices == ("none",):
        return None
    gpus = [one.name for one in backend.devices(native) if one.kind in ("gpu", "igpu") and one.backend != RPC]
    chosen = [name for name in config.devices if name in gpus] or gpus
    return chosen[min(config.main_gpu, len(chosen) - 1)] if chosen else None


def warm_up_projector(config: TextConfig, projector: Projector | None, contexts: Sequence[Context]) -> None:
    """Encode an image and a sound, and compute them: what cannot be done should end the load, not a request.

    `contexts` are those that take media.

    On a GPU the image is large, so that its memory is there from now on. Raises ModelLoadError.
    """
    if projector is None:
        return
    side = SMALL_SIDE if _device(config, projector.native) is None else LARGE_SIDE
    parts: list[Picture | Sound] = []
    if projector.has_vision:
        parts.append(Picture(side, side, bytes(3 * side * side)))
    if projector.has_audio:
        parts.append(Sound(projector.audio_rate, bytes(4 * projector.audio_rate)))
    chunks = [one for one in projector.tokenize(parts, add_special=False) if isinstance(one, MediaChunk)]
    with ExitStack() as owned:
        for chunk in chunks:
            owned.enter_context(chunk)
        try:
            rows = dict(zip([chunk.key for chunk in chunks], projector.encode(chunks), strict=True))
            for context in contexts:
                _compute(context, chunks, rows)
        except (EncodeError, DecodeError) as error:
            raise ModelLoadError(f"{projector.path} cannot be used: {error.message}") from error


def _compute(context: Context, chunks: Sequence[MediaChunk], rows: dict[bytes, ChunkRows]) -> None:
    """Compute each chunk's first rows. Leaves the memory empty."""
    for chunk in chunks:
        n_rows = min(chunk.n_cells, context.n_batch) if chunk.is_causal else chunk.n_cells
        if n_rows <= min(context.n_ctx_seq, context.n_batch):  # else no prompt may have it
            media = Media(chunk.key, chunk.n_cells, chunk.n_positions, chunk.is_causal)
            n_outputs = n_rows if context.params.embeddings else 1
            decode_media(context, [Run(0, 0, MediaRows(media, 0, n_rows), n_outputs)], lambda one: rows[one.key])
            context.synchronize()
            context.memory.clear()


def with_room(config: TextConfig, projector: Projector | None) -> TextConfig:
    """The configuration with batches that hold the largest picture whose cells attend to one another.

    libllama ends the process where such a picture is not computed at once.
    """
    n_cells = whole_cells(projector)
    if n_cells <= config.n_ubatch:
        return config
    logger.info("--ubatch-size is %d: an image of this model has as many tokens, which are computed at once", n_cells)
    return replace(config, n_ubatch=n_cells, n_batch=max(config.n_batch, n_cells))


def whole_cells(projector: Projector | None) -> int:
    """Cells of the largest picture that must be computed at once, and some to spare; 0 where none must."""
    if projector is None or projector.is_causal:
        return 0
    largest = projector.largest_picture
    return -(-(largest + largest // UNTRIED) // SPARE) * SPARE


def media_info(projector: Projector | None) -> MediaInfo | None:
    """What the server process is told of it."""
    if projector is None:
        return None
    return MediaInfo(
        has_vision=projector.has_vision,
        has_audio=projector.has_audio,
        audio_rate=projector.audio_rate,
        max_image_pixels=DETAIL * projector.most_pixels,
    )
