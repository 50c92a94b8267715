"""libstable-diffusion: one loaded model, drawing one image at a time. The only file that knows that library's C.

Its progress, preview and log callbacks are one for the process, so a process has one `Diffusion`. The first two are
called on the thread that draws, which is Python's own; the log goes through a ring in C (see bindings.log), since the
library's loading threads write to it too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from llamabox.bindings.ffi import Native, Owned
from llamabox.bindings.images.params import DrawParams, LoadParams, Picture, Timing, Watch
from llamabox.errors import InvalidRequest, ModelLoadError, NativeError, ServerFault

OVERLAP = 0.5
"""Overlap of the tiles that a picture is decoded in, as a part of a tile."""

UPSCALE_TILE = 128
"""Pixels of the input's side that are upscaled at once."""

CANNY = (0.08, 0.08, 0.8, 1.0)
"""Thresholds, high and low, and the brightness of weak and strong edges: the library's own tool's."""

SAMPLING = 1
"""lb_phase() while steps are made."""


class _Callbacks:
    """Python's side of the library's callbacks, behind their `data`. An exception cannot pass through C: it is kept."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self.watch: Watch | None = None
        self.on_loaded: Callable[[float], None] | None = None
        self.loaded = 0.0
        self.may_be_tiles = False
        self.n_done = -1
        self.error: BaseException | None = None

    def progress(self, step: int, steps: int) -> None:
        """Tiles of a picture are reported like steps: they come before and after the sampling. So is loading."""
        if self.on_loaded:
            part = min(step / steps, 1.0) if steps > 0 else 0.0
            if part > self.loaded:  # each file begins anew
                self.loaded = part
                self._call(self.on_loaded, part)
            return
        if self.may_be_tiles and self._native.lib.lb_phase() != SAMPLING:
            return
        if self.watch and step > self.n_done:  # a sampler that looks twice at a step says so twice
            self.n_done = step
            self._call(self.watch.on_step, step, steps)

    def preview(self, step: int, n_frames: int, frames: Any) -> None:
        if self.watch and n_frames > 0 and step > 0:
            self._call(self.watch.on_preview, step, _picture(self._native.ffi, frames[0]))

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except BaseException as exc:
            self.error = self.error or exc
            self.watch = self.on_loaded = None


class Diffusion(Owned):
    """A loaded model. `draw` is for one thread at a time; `cancel` may come from any.

    Loading calls `on_loaded` with the part that is read, on this thread. Raises ModelLoadError with what the library
    said first when it would not load.
    """

    def __init__(self, native: Native, params: LoadParams, on_loaded: Callable[[float], None]) -> None:
        self._native, ffi, lib = native, native.ffi, native.lib
        self._callbacks = _Callbacks(native)
        self._callbacks.on_loaded = on_loaded
        self._data = ffi.new_handle(self._callbacks)
        self._lock = threading.Lock()  # between cancel() and close()
        _define_callbacks(ffi)
        lib.lb_log_install()
        lib.lb_log_forget_error()
        lib.sd_set_progress_callback(lib.lb_on_progress, self._data)
        options = ffi.new("sd_ctx_params_t *")
        lib.lb_ctx_params_init(options)
        keep = _set_paths(ffi, options, params)
        options.n_threads = params.n_threads if params.n_threads > 0 else lib.sd_get_num_physical_cores()
        options.keep_clip_on_cpu = params.keep_text_encoder_on_cpu
        options.keep_vae_on_cpu = params.keep_vae_on_cpu
        options.keep_control_net_on_cpu = params.keep_control_net_on_cpu
        options.flash_attn = options.diffusion_flash_attn = params.flash_attn
        options.enable_mmap = params.mmap
        self._has_tae = params.taesd is not None
        context = lib.new_sd_ctx(options)
        self._callbacks.on_loaded = None
        del keep
        if context == ffi.NULL:
            others = [*_paths(params).values()][1:]
            beside = f", with {', '.join(others)}," if others else ""
            raise ModelLoadError(f"{params.model}{beside} cannot be loaded: {_first_error(native)}")
        super().__init__(context, lib.free_sd_ctx, "model")
        if not lib.sd_ctx_supports_image_generation(context):
            self.close()
            raise ModelLoadError(f"{params.model} is not a model that draws images")

    def close(self) -> None:
        with self._lock:
            super().close()

    @property
    def can_cancel(self) -> bool:
        return bool(self._native.lib.lb_can_cancel())

    def cancel(self) -> bool:
        """Stop what is being drawn, within a step. False where this library cannot. Any thread."""
        with self._lock:
            return self.is_open and bool(self._native.lib.lb_cancel(self.handle))

    @property
    def default_sampler(self) -> str:
        lib = self._native.lib
        return self._native.text(lib.sd_sample_method_name(lib.sd_get_default_sample_method(self.handle))) or ""

    def default_schedule(self, sampler: str) -> str:
        lib = self._native.lib
        method = samplers(self._native)[sampler]
        return self._native.text(lib.sd_scheduler_name(lib.sd_get_default_scheduler(self.handle, method))) or ""

    def draw(self, params: DrawParams, watch: Watch) -> tuple[Picture, Timing]:
        """The image, and how long it took. Blocks; the GIL is released meanwhile.

        It may be larger than asked for, where the model needs sides of certain multiples. Raises ServerFault when the
        library gives none, and what `watch` raised.
        """
        ffi, lib, callbacks = self._native.ffi, self._native.lib, self._callbacks
        options = ffi.new("sd_img_gen_params_t *")
        lib.sd_img_gen_params_init(options)
        keep = _set_draw(self._native, options, params)
        callbacks.watch, callbacks.n_done, callbacks.error = watch, -1, None
        callbacks.may_be_tiles = params.vae_tiling
        full = lib.PREVIEW_TAE if self._has_tae else lib.PREVIEW_VAE
        mode = {"none": lib.PREVIEW_NONE, "fast": lib.PREVIEW_PROJ, "full": full}[params.preview]
        function = lib.lb_on_preview if params.preview != "none" else ffi.NULL
        lib.sd_set_preview_callback(function, mode, 1, True, False, self._data)
        lib.lb_log_forget_error()
        try:
            images = lib.lb_generate(self.handle, options)
        finally:
            callbacks.watch = None
            del keep
        found = _picture(ffi, images[0]) if images != ffi.NULL and images[0].data != ffi.NULL else None
        if images != ffi.NULL:
            lib.lb_free_images(images, 1)
        if callbacks.error:
            raise callbacks.error
        if not found:
            raise ServerFault(f"the image could not be drawn: {_first_error(self._native)}")
        return found, Timing(lib.lb_prepare_us() / 1000, lib.lb_sampling_us() / 1000)


class Upscaler(Owned):
    """A loaded ESRGAN model, which makes pictures `factor` times as wide and as high."""

    def __init__(self, native: Native, path: str, n_threads: int) -> None:
        self._native = native
        native.lib.lb_log_install()
        native.lib.lb_log_forget_error()
        n_threads = n_threads if n_threads > 0 else native.lib.sd_get_num_physical_cores()
        context = native.lib.lb_new_upscaler(os.fsencode(path), n_threads, UPSCALE_TILE)
        if context == native.ffi.NULL:
            raise ModelLoadError(f"{path} cannot be loaded: {_first_error(native)}")
        super().__init__(context, native.lib.free_upscaler_ctx, "upscaler")

    @property
    def factor(self) -> int:
        return int(self._native.lib.get_upscale_factor(self.handle))

    def upscale(self, picture: Picture) -> Picture:
        ffi, lib = self._native.ffi, self._native.lib
        image, _data = _image(ffi, picture)
        found = lib.upscale(self.handle, image[0], self.factor)
        if found.data == ffi.NULL:
            raise ServerFault(f"the image could not be upscaled: {_first_error(self._native)}")
        larger = _picture(ffi, found)
        lib.lb_free_image(found)
        return larger


def edges(native: Native, picture: Picture) -> Picture:
    """The outlines in a picture, white on black (Canny's detector)."""
    image, data = _image(native.ffi, picture)
    if not native.lib.preprocess_canny(image[0], *CANNY, False):
        raise ServerFault("the outlines of the control image could not be found")
    return Picture(picture.width, picture.height, picture.channels, bytes(native.ffi.buffer(data)))


def samplers(native: Native) -> dict[str, int]:
    """The library's sampling methods by their names."""
    lib = native.lib
    return {native.text(lib.sd_sample_method_name(i)) or "": i for i in range(lib.SAMPLE_METHOD_COUNT)}


def schedules(native: Native) -> dict[str, int]:
    """The library's schedules of noise by their names."""
    return {native.text(native.lib.sd_scheduler_name(i)) or "": i for i in range(native.lib.SCHEDULER_COUNT)}


def version(native: Native) -> str:
    """The library's name for itself, or the name of the sources where the library does not know."""
    manifest = native.prefix.manifest
    said = [native.text(native.lib.sd_version()), native.text(native.lib.sd_commit())]
    known = [text for text in said if text and text != "unknown"]
    source = manifest["source"]
    return "-".join(known) or f"{source['package']} {source['version']}".strip() or "unknown"


def _first_error(native: Native) -> str:
    """The first error that the library logged, without the place in its source."""
    line = native.first_error()
    return line.partition(" - ")[2].strip() or line


def _define_callbacks(ffi: Any) -> None:
    """Give the module's two `extern "Python"` functions their bodies."""

    def on_progress(step: int, steps: int, _time: float, data: Any) -> None:
        ffi.from_handle(data).progress(step, steps)

    def on_preview(step: int, n_frames: int, frames: Any, _is_noisy: bool, data: Any) -> None:
        ffi.from_handle(data).preview(step, n_frames, frames)

    ffi.def_extern(name="lb_on_progress")(on_progress)
    ffi.def_extern(name="lb_on_preview")(on_preview)


def _paths(params: LoadParams) -> dict[str, str]:
    """Field of the library's parameters -> file, the model's first."""
    named = {
        "diffusion_model_path" if params.diffusion_only else "model_path": params.model,
        "vae_path": params.vae,
        "taesd_path": params.taesd,
        "clip_l_path": params.clip_l,
        "clip_g_path": params.clip_g,
        "t5xxl_path": params.t5xxl,
        "control_net_path": params.control_net,
    }
    return {name: path for name, path in named.items() if path is not None}


def _set_paths(ffi: Any, options: Any, params: LoadParams) -> list[Any]:
    """Returns what must live as long as `options` is used."""
    keep = []
    for name, path in _paths(params).items():
        keep.append(ffi.new("char[]", os.fsencode(path)))
        setattr(options, name, keep[-1])
    return keep


def _set_draw(native: Native, options: Any, params: DrawParams) -> list[Any]:
    """Returns what must live as long as `options` is used."""
    ffi = native.ffi
    prompt, negative = (ffi.new("char[]", text.encode()) for text in (params.prompt, params.negative_prompt))
    keep = [prompt, negative]
    options.prompt, options.negative_prompt = prompt, negative
    options.width, options.height, options.seed = params.width, params.height, params.seed
    options.strength, options.batch_count = params.strength, 1
    if params.clip_skip is not None:
        options.clip_skip = params.clip_skip
    keep += _set_sampling(native, options.sample_params, params)
    for name in ("init", "mask", "control"):
        picture = getattr(params, name)
        if picture is not None:
            image, data = _image(ffi, picture)
            keep.append(data)
            setattr(options, f"{name}_image", image[0])
    options.control_strength = params.control_strength
    options.vae_tiling_params.enabled = params.vae_tiling
    options.vae_tiling_params.target_overlap = OVERLAP
    loras = ffi.new("sd_lora_t[]", len(params.lora))
    for lora, (path, scale) in zip(loras, params.lora, strict=True):
        keep.append(ffi.new("char[]", os.fsencode(path)))
        lora.path, lora.multiplier = keep[-1], scale
    options.loras, options.lora_count = loras, len(params.lora)
    return [*keep, loras]


def _set_sampling(native: Native, sampling: Any, params: DrawParams) -> list[Any]:
    methods, schedulers = samplers(native), schedules(native)
    for field, name, known in (
        ("sampler", params.sampler, methods),
        ("schedule", params.schedule, schedulers),
    ):
        if name not in known:
            raise InvalidRequest(f"{field} must be one of {', '.join(known)}, not {name!r}", field=field)
    sampling.sample_method, sampling.scheduler = methods[params.sampler], schedulers[params.schedule]
    sampling.sample_steps = params.steps
    if params.eta is not None:
        sampling.eta = params.eta
    guidance = sampling.guidance
    guidance.txt_cfg, guidance.distilled_guidance = params.cfg_scale, params.guidance
    layers = native.ffi.new("int[]", list(params.slg_layers))
    guidance.slg.layers, guidance.slg.layer_count = layers, len(params.slg_layers)
    for name, value in (
        ("scale", params.slg_scale),
        ("layer_start", params.slg_start),
        ("layer_end", params.slg_end),
    ):
        if value is not None:
            setattr(guidance.slg, name, value)
    return [layers]


def _image(ffi: Any, picture: Picture) -> tuple[Any, Any]:
    """A `sd_image_t *` and the copy of the bytes that it points into, both to be kept."""
    expected = picture.width * picture.height * picture.channels
    if len(picture.data) != expected:
        raise NativeError(
            f"a picture of {picture.width}x{picture.height} has {expected} bytes, not {len(picture.data)}"
        )
    data = ffi.new("uint8_t[]", picture.data)
    image = ffi.new("sd_image_t *")
    image.width, image.height, image.channel, image.data = picture.width, picture.height, picture.channels, data
    return image, data


def _picture(ffi: Any, image: Any) -> Picture:
    n_bytes = image.width * image.height * image.channel
    return Picture(image.width, image.height, image.channel, bytes(ffi.buffer(image.data, n_bytes)))
