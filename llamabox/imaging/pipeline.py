"""A loaded diffusion model that draws jobs: defaults filled in, one image after the other, PNG out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llamabox.bindings.ffi import Native, load_images
from llamabox.bindings.images import diffusion
from llamabox.bindings.images.diffusion import Diffusion, Upscaler
from llamabox.bindings.images.params import DrawParams, LoadParams, Picture, Watch
from llamabox.bindings.log import LogPump
from llamabox.errors import InvalidRequest, ModelLoadError, NotSupported
from llamabox.imaging import png
from llamabox.imaging.config import ImageConfig, ImageModelInfo
from llamabox.imaging.events import Drawn, JobProgress, Preview, WorkerEvent
from llamabox.imaging.families import UNKNOWN, Family, family_of, is_standalone
from llamabox.imaging.job import ImageJob, Pixels
from llamabox.imaging.model_file import fault, tensors_of

ALIASES = {"default": None}
"""Schedules of the command line that are no schedule of the library's: the model's own."""

DEVICES = ("SD_VK_DEVICE", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""How libstable-diffusion, and the drivers below it, are told which GPU to use. It has no parameter for it."""

ADAPTER_MARKS = ("lora", "lokr", "hada", ".diff")
"""One of them is in the names of an adapter's tensors, whatever tool made it."""

Emit = Callable[[WorkerEvent], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that a job is drawn with: its own, and defaults where it has none."""

    sampler: str
    schedule: str
    steps: int
    cfg_scale: float
    guidance: float
    strength: float
    lora: tuple[tuple[str, float], ...]  # files and scales


class Pipeline:
    """Owns the model. `draw` is for one thread, `cancel` for any."""

    def __init__(self, config: ImageConfig, native: Native, model: Diffusion, family: Family) -> None:
        self._config, self._native, self._model, self._family = config, native, model, family
        self._samplers, self._schedules = diffusion.samplers(native), diffusion.schedules(native)
        self._stop = threading.Event()
        self._upscaler: Upscaler | None = None
        self._owned = ExitStack()  # all that `load` opened

    @classmethod
    def load(cls, config: ImageConfig, on_progress: Callable[[float], None]) -> Pipeline:
        """Blocks. `on_progress` gets rising numbers from 0 to 1. Raises ModelLoadError, NativeMissing, NativeMismatch.

        Files are checked before the library opens them: it crashes on some that are cut off.
        """
        tensors = tensors_of(Path(config.model))
        family = UNKNOWN if tensors is None else family_of(tensors)
        if family is None:
            what = "it is not a diffusion model, by the names of its tensors"
            if tensors and "token_embd.weight" in tensors:
                what = "it is a model for texts and not one that draws: leave out --images"
            raise fault(Path(config.model), what)
        _check_other_files(config)
        if config.main_gpu > 0:
            for name in DEVICES:
                os.environ.setdefault(name, str(config.main_gpu))
        native = load_images(config.native)
        standalone = tensors is not None and is_standalone(tensors)
        params = _load_params(config, standalone)
        with ExitStack() as owned:
            owned.enter_context(LogPump(native))
            model = owned.enter_context(Diffusion(native, params, lambda part: on_progress(min(part, 0.99))))
            pipeline = cls(config, native, model, family)
            pipeline._check_options()
            if config.upscale_model is not None:
                upscaler = Upscaler(native, config.upscale_model, config.n_threads)
                pipeline._upscaler = owned.enter_context(upscaler)
            pipeline._owned = owned.pop_all()
        on_progress(1.0)
        return pipeline

    def close(self) -> None:
        self._owned.close()

    @property
    def info(self) -> ImageModelInfo:
        settings = self._settings(ImageJob(request_id="", prompt=""))
        return ImageModelInfo(
            path=self._config.model,
            family=self._family.name,
            sampler=settings.sampler,
            schedule=settings.schedule,
            steps=settings.steps,
            cfg_scale=settings.cfg_scale,
            guidance=settings.guidance,
            strength=settings.strength,
            width=min(self._family.size, self._config.max_width),
            height=min(self._family.size, self._config.max_height),
            lora=[{"path": path} for path in self._config.lora],
            can_cancel=self._model.can_cancel,
            can_preview=True,
            has_control_net=self._config.control_net_model is not None,
            samplers=list(self._samplers),
            schedules=["default", *self._schedules],
            library=diffusion.version(self._native),
        )

    def cancel(self) -> bool:
        """End the job that is drawn, within a step. False where the library cannot: then after this image. Any thread.

        `draw` returns without the Drawn of what was not finished.
        """
        self._stop.set()
        return self._model.cancel()

    def draw(self, job: ImageJob, emit: Emit) -> None:
        """Blocks. JobProgress, Preview and Drawn of each image go to `emit`, on this thread.

        Image i is what a job of one image with seed + i gives, to the byte. Raises InvalidRequest, NotSupported where
        the job cannot be drawn with this model, ServerFault where the library failed.
        """
        self._stop.clear()
        settings = self._settings(job)
        control = self._control(job)
        for index in range(job.n):
            if self._stop.is_set():
                return
            params = self._draw_params(job, settings, index, control)
            teller = _Teller(job, index, emit)
            try:
                picture, timing = self._model.draw(params, Watch(teller.on_step, teller.on_preview))
            except Exception:
                if self._stop.is_set():
                    return  # a cancelled drawing ends as a failed one
                raise
            picture = self._upscaled(_cropped(picture, job.width, job.height))
            text = self._describe(job, settings, params.seed, picture)
            data = png.encode(picture.width, picture.height, picture.channels, picture.data, text)
            taken = (timing.prepare_ms, timing.sampling_ms)
            emit(Drawn(job.request_id, index, data, params.seed, *taken, teller.steps))

    def _check_options(self) -> None:
        """The names on the command line are the library's to judge."""
        try:
            self._settings(ImageJob(request_id="", prompt=""))
        except InvalidRequest as exc:
            raise ModelLoadError(f"the image options: {exc.message}") from exc

    def _settings(self, job: ImageJob) -> Settings:
        config, family = self._config, self._family
        sampler = job.sampler or config.sampler or family.sampler or self._model.default_sampler
        _check_name("sampler", sampler, self._samplers)
        chosen = job.schedule or config.schedule or "default"
        schedule = ALIASES.get(chosen, chosen) or self._model.default_schedule(sampler)
        _check_name("schedule", schedule, self._schedules)
        cfg_scale = _first(job.cfg_scale, config.cfg_scale, family.cfg_scale)
        return Settings(
            sampler=sampler,
            schedule=schedule,
            steps=int(_first(job.steps, config.steps, family.steps)) + job.extra_steps,
            cfg_scale=cfg_scale,
            guidance=_first(job.guidance, config.guidance),
            strength=_first(job.strength, config.strength),
            lora=self._files(job.lora),
        )

    def _files(self, scales: Sequence[tuple[int, float]]) -> tuple[tuple[str, float], ...]:
        for index, _ in scales:
            if not 0 <= index < len(self._config.lora):
                raise InvalidRequest(f"invalid adapter id {index}: there are {len(self._config.lora)}", field="lora")
        return tuple((self._config.lora[index], scale) for index, scale in scales if scale != 0.0)

    def _control(self, job: ImageJob) -> Picture | None:
        """The control image as it goes to the model."""
        if job.control is None:
            return None
        if self._config.control_net_model is None:
            raise NotSupported("a control image needs a server that was started with --image-control-net-model")
        picture = self._fitted(job.control, job)
        canny = self._config.control_canny if job.control_canny is None else job.control_canny
        return diffusion.edges(self._native, picture) if canny else picture

    def _draw_params(self, job: ImageJob, settings: Settings, index: int, control: Picture | None) -> DrawParams:
        width, height = self._aligned(job)
        return DrawParams(
            prompt=job.prompt,
            negative_prompt=job.negative_prompt,
            width=width,
            height=height,
            seed=job.seed + index,
            sampler=settings.sampler,
            schedule=settings.schedule,
            steps=settings.steps,
            cfg_scale=settings.cfg_scale,
            guidance=settings.guidance,
            strength=settings.strength,
            eta=job.eta,
            clip_skip=job.clip_skip,
            slg_scale=job.slg_scale,
            slg_start=job.slg_start,
            slg_end=job.slg_end,
            slg_layers=job.slg_layers,
            init=self._fitted(job.init, job) if job.init else None,
            mask=self._fitted(job.mask, job) if job.mask else None,
            control=control,
            control_strength=_first(job.control_strength, self._config.control_strength),
            lora=settings.lora,
            vae_tiling=self._config.vae_tiling,
            preview=job.preview,
        )

    def _aligned(self, job: ImageJob) -> tuple[int, int]:
        multiple = self._family.multiple
        return -(-job.width // multiple) * multiple, -(-job.height // multiple) * multiple

    def _fitted(self, pixels: Pixels, job: ImageJob) -> Picture:
        """With its last column and row repeated up to what is computed; `_cropped` takes that off again."""
        if (pixels.width, pixels.height) != (job.width, job.height):
            raise InvalidRequest(
                f"the picture has {pixels.width}x{pixels.height} pixels, the image {job.width}x{job.height}"
            )
        width, height = self._aligned(job)
        rows = np.frombuffer(pixels.data, np.uint8).reshape(pixels.height, pixels.width, pixels.channels)
        padded = np.pad(rows, ((0, height - pixels.height), (0, width - pixels.width), (0, 0)), mode="edge")
        return Picture(width, height, pixels.channels, padded.tobytes())

    def _upscaled(self, picture: Picture) -> Picture:
        if self._upscaler is not None:
            for _ in range(self._config.upscale_repeats):
                picture = self._upscaler.upscale(picture)
        return picture

    def _describe(self, job: ImageJob, settings: Settings, seed: int, picture: Picture) -> str:
        """The text for the PNG file, in the form that tools for generated images read."""
        facts = {
            "Steps": settings.steps,
            "Sampler": settings.sampler,
            "Schedule type": settings.schedule,
            "CFG scale": settings.cfg_scale,
            "Guidance": settings.guidance,
            "Seed": seed,
            "Size": f"{picture.width}x{picture.height}",
            "Model": Path(self._config.model).stem,
        }
        if job.init is not None:
            facts["Denoising strength"] = settings.strength
        negative = f"Negative prompt: {job.negative_prompt}\n" if job.negative_prompt else ""
        return f"{job.prompt}\n{negative}{', '.join(f'{name}: {value}' for name, value in facts.items())}"


def _check_other_files(config: ImageConfig) -> None:
    """Raises ModelLoadError. The library only warns of an adapter that it cannot use, and goes on without it."""
    parts = (config.vae_model, config.taesd_model, config.clip_l_model, config.clip_g_model, config.t5xxl_model)
    for path in (*parts, config.control_net_model, config.upscale_model):
        if path is not None:
            tensors_of(Path(path))
    for path in config.lora:
        tensors = tensors_of(Path(path))
        if tensors is not None and not any(mark in name for name in tensors for mark in ADAPTER_MARKS):
            raise fault(Path(path), "it is not a LoRA adapter, by the names of its tensors")


def _load_params(config: ImageConfig, standalone: bool) -> LoadParams:
    return LoadParams(
        model=config.model,
        diffusion_only=standalone,
        vae=config.vae_model,
        taesd=config.taesd_model,
        clip_l=config.clip_l_model,
        clip_g=config.clip_g_model,
        t5xxl=config.t5xxl_model,
        control_net=config.control_net_model,
        n_threads=config.n_threads,
        keep_text_encoder_on_cpu=config.keep_text_encoder_on_cpu,
        keep_vae_on_cpu=config.keep_vae_on_cpu,
        keep_control_net_on_cpu=config.keep_control_net_on_cpu,
        flash_attn=config.flash_attn,
        mmap=config.mmap,
    )


class _Teller:
    """Makes events of what happens to one image. `steps`: how many it takes, once the first has begun."""

    def __init__(self, job: ImageJob, index: int, emit: Emit) -> None:
        self._job, self._index, self._emit = job, index, emit
        self.steps = 0

    def on_step(self, step: int, steps: int) -> None:
        self.steps = steps
        self._emit(JobProgress(self._job.request_id, self._index, step, steps))

    def on_preview(self, step: int, picture: Picture) -> None:
        picture = _cropped(picture, self._job.width, self._job.height)
        data = png.encode(picture.width, picture.height, picture.channels, picture.data)
        self._emit(Preview(self._job.request_id, self._index, step, self.steps, data))


def _cropped(picture: Picture, width: int, height: int) -> Picture:
    """The upper left part. A preview may be smaller than the image as a whole: it stays as it is."""
    if (picture.width, picture.height) == (width, height) or picture.width < width or picture.height < height:
        return picture
    rows = np.frombuffer(picture.data, np.uint8).reshape(picture.height, picture.width, picture.channels)
    return Picture(width, height, picture.channels, rows[:height, :width].tobytes())


def _check_name(field: str, name: str, known: dict[str, int]) -> None:
    if name not in known:
        raise InvalidRequest(f"{field} must be one of {', '.join(known)}, not {name!r}", field=field)


def _first(*values: float | None) -> float:
    """The first that was given; the last always is."""
    return next(value for value in values if value is not None)
