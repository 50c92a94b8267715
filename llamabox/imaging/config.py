"""The configuration of an image worker, and what it tells about the model that it loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

FileName = Annotated[str, "path"]
"""A path of any bytes, which need not be UTF-8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """Everything that an image worker needs to load and run a model. Units and defaults are those of the options.

    Of what a job may say as well, None is the model's own.
    """

    model: FileName
    n_threads: int = -1
    main_gpu: int = 0
    lora: tuple[FileName, ...] = ()  # adapter files; the index is the id
    vae_model: FileName | None = None  # None of these: in `model`
    taesd_model: FileName | None = None
    clip_l_model: FileName | None = None
    clip_g_model: FileName | None = None
    t5xxl_model: FileName | None = None
    control_net_model: FileName | None = None
    upscale_model: FileName | None = None
    upscale_repeats: int = 1
    vae_tiling: bool = False
    keep_text_encoder_on_cpu: bool = False
    keep_vae_on_cpu: bool = False
    keep_control_net_on_cpu: bool = False
    flash_attn: bool = False
    mmap: bool = True
    sampler: str | None = None
    schedule: str | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    guidance: float = 3.5
    strength: float = 0.75
    control_strength: float = 0.9
    control_canny: bool = False
    seed: int = -1
    max_batch: int = 4  # images of one job
    max_width: int = 1024  # pixels
    max_height: int = 1024
    n_parallel: int = 1  # jobs that may wait, beside the one that is drawn
    hang_timeout: float = 60.0  # seconds without a sign of life after which the worker is killed; 0: never
    verbosity: int = 0
    log_colors: bool = False
    log_json: bool = False
    native: FileName | None = None  # the native prefix; None: the one inside the package


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageModelInfo:
    """The server process' knowledge of the loaded model. `sampler` to `height` are the defaults of a job."""

    path: str
    family: str
    sampler: str
    schedule: str
    steps: int
    cfg_scale: float
    guidance: float
    strength: float
    width: int
    height: int
    lora: list[dict[str, str]] = field(default_factory=list)  # by id: path
    can_cancel: bool = False  # a job can be stopped within a step
    can_preview: bool = False
    has_control_net: bool = False
    samplers: list[str] = field(default_factory=list)
    schedules: list[str] = field(default_factory=list)
    library: str = ""  # the build of libstable-diffusion
