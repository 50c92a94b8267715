"""Requests to libstable-diffusion as plain values. bindings.images.diffusion fills the library's structs from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Picture:
    """Rows from the top, `width * height * channels` bytes; 1 or 3 channels."""

    width: int
    height: int
    channels: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadParams:
    """The files of a model and how it runs. A path that is None: that part is in the file `model`."""

    model: str
    diffusion_only: bool = False  # the names of its tensors lack the prefix of a file with text encoders
    vae: str | None = None
    taesd: str | None = None
    clip_l: str | None = None
    clip_g: str | None = None
    t5xxl: str | None = None
    control_net: str | None = None
    n_threads: int = -1  # below 1: one for each physical core
    keep_text_encoder_on_cpu: bool = False
    keep_vae_on_cpu: bool = False
    keep_control_net_on_cpu: bool = False
    flash_attn: bool = False
    mmap: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawParams:
    """One image. None is the library's own choice. Pictures have the size of the image."""

    prompt: str
    negative_prompt: str
    width: int
    height: int
    seed: int
    sampler: str
    schedule: str
    steps: int
    cfg_scale: float
    guidance: float
    strength: float
    eta: float | None = None
    clip_skip: int | None = None
    slg_scale: float | None = None
    slg_start: float | None = None
    slg_end: float | None = None
    slg_layers: tuple[int, ...] = ()
    init: Picture | None = None
    mask: Picture | None = None
    control: Picture | None = None
    control_strength: float = 0.9
    lora: tuple[tuple[str, float], ...] = ()  # files and scales
    vae_tiling: bool = False
    preview: str = "none"  # none, fast (a projection), full (decoded)


@dataclass(frozen=True, slots=True)
class Watch:
    """Functions to call while an image is drawn, on the thread that draws it."""

    on_step: Callable[[int, int], None]  # steps done, of how many; first with 0 done
    on_preview: Callable[[int, Picture], None]  # steps begun


@dataclass(frozen=True, slots=True)
class Timing:
    """Time of an image: to read the prompt and encode pictures, then for the steps. Decoding is in neither."""

    prepare_ms: float
    sampling_ms: float
