"""The projector that --mmproj names, beside its model."""

from __future__ import annotations

import logging
from dataclasses import replace

from llamabox.bindings import backend
from llamabox.bindings.context import FlashAttention
from llamabox.bindings.ffi import Native
from llamabox.bindings.media.projector import Projector, ProjectorParams
from llamabox.bindings.model import Model
from llamabox.bindings.rpc.devices import RPC
from llamabox.errors import OptionsError
from llamabox.wire.text_config import MediaInfo, TextConfig
from llamabox.workers.text.loading.threads import n_threads

logger = logging.getLogger(__name__)


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
    """Its threads are as many as those of prompts."""
    device = _device(config, native)
    return ProjectorParams(
        n_threads=n_threads(config),
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


def with_room(config: TextConfig, projector: Projector | None) -> TextConfig:
    """The configuration with batches that hold the largest picture whose cells attend to one another.

    libllama ends the process where such a picture is not computed at once.
    """
    if projector is None or projector.is_causal or projector.largest_picture <= config.n_ubatch:
        return config
    n_cells = projector.largest_picture
    logger.info("--ubatch-size is %d: an image of this model has so many tokens, which are computed at once", n_cells)
    return replace(config, n_ubatch=n_cells, n_batch=max(config.n_batch, n_cells))


def media_info(projector: Projector | None) -> MediaInfo | None:
    """What the server process is told of it."""
    if projector is None:
        return None
    return MediaInfo(has_vision=projector.has_vision, has_audio=projector.has_audio, audio_rate=projector.audio_rate)
