"""A model in memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from llamabox.bindings.backend import buffer_types, device_handle, kernels
from llamabox.bindings.ffi import Native, Owned
from llamabox.bindings.files import gguf
from llamabox.bindings.weights.pages import forget_pages
from llamabox.errors import ModelLoadError
from llamabox.libllama import MAX_KV_TEXT

REPORT_SECONDS = 0.05


class LoadMode(StrEnum):
    """How the weights get into memory."""

    AUTO = "auto"
    NONE = "none"
    MMAP = "mmap"
    MLOCK = "mlock"
    MMAP_MLOCK = "mmap_mlock"


class SplitMode(StrEnum):
    """How a model is spread over several GPUs."""

    NONE = "none"
    LAYER = "layer"
    ROW = "row"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParams:
    """How to load a model. Devices by their ggml names."""

    n_gpu_layers: int = -1  # -1: all
    load_mode: LoadMode = LoadMode.AUTO
    split_mode: SplitMode = SplitMode.LAYER
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    devices: tuple[str, ...] | None = None  # None: all GPUs and RPC servers; (): the CPU alone
    kv_overrides: tuple[tuple[str, int | float | bool | str], ...] = ()
    tensor_buffers: tuple[tuple[str, str], ...] = ()  # of tensors whose names have a pattern: it, and a buffer type
    repack: bool = True  # keep weights in the layouts that the CPU computes fastest with
    check_tensors: bool = False
    no_host: bool = False  # none of the CPU's weights in memory that a GPU reaches
    vocab_only: bool = False
    mtp: bool = False  # with the heads of multi-token prediction, where the file has some


class Model(Owned):
    """Weights and vocabulary. `close()` must come after that of every Context made from it.

    Reading its properties is thread-safe.
    """

    def __init__(self, native: Native, handle: Any, path: Path, header: gguf.Header, params: ModelParams) -> None:
        from llamabox.bindings.vocab import Vocab  # with numpy, which is imported while a model loads

        super().__init__(handle, native.lib.llama_model_free, "model")
        self.native = native
        self.params = params
        self.path = path
        self.header = header  # of its file, with the tensors of all parts
        self.vocab = Vocab(native, native.lib.llama_model_get_vocab(handle))

    @classmethod
    def load(
        cls,
        native: Native,
        path: str | Path,
        params: ModelParams | None = None,
        *,
        on_progress: Callable[[float], bool | None] | None = None,
        widen: Callable[[gguf.Header], int] = lambda header: 0,
    ) -> Model:
        """Load a GGUF file; `backend.start()` must have run. Takes as long as reading the file does.

        `widen` says how many bytes more the weights may take to be computed with faster (see bindings.widen).

        on_progress is called in the calling thread, now and then, with 0 to 1; it stops the load by returning False.
        Raises ModelLoadError with one line that says what is wrong with the file.
        """
        return cls.begin(native, path, params, widen=widen).finish(on_progress)

    @classmethod
    def begin(
        cls,
        native: Native,
        path: str | Path,
        params: ModelParams | None = None,
        *,
        widen: Callable[[gguf.Header], int] = lambda header: 0,
    ) -> Loading:
        """Begin to load a GGUF file; see `load`. It goes on beside the caller."""
        path, params = Path(path), params or ModelParams()
        header = gguf.check_model(path, type_sizes(native))
        descriptor = None
        if budget := widen(header):
            from llamabox.bindings.weights.widen import widened  # with numpy, too

            descriptor = widened(path, header, budget)
        native.lib.lb_lock_packed(params.load_mode in (LoadMode.MLOCK, LoadMode.MMAP_MLOCK))
        return Loading(native, path, header, params, descriptor)

    def _int(self, name: str) -> int:
        return int(getattr(self.native.lib, f"llama_model_{name}")(self.handle))

    @property
    def n_ctx_train(self) -> int:
        """Tokens. A context with YaRN scaling raises it."""
        return self._int("n_ctx_train")

    @cached_property
    def n_embd(self) -> int:
        return self._int("n_embd")

    @cached_property
    def n_head(self) -> int:
        """Attention heads of the layer that has the most."""
        return self._int("n_head")

    @cached_property
    def head_sizes(self) -> tuple[int, int]:
        """Elements of an attention head's keys and of its values, where they are the same in all layers."""
        usual = self.n_embd // max(self.n_head, 1)
        key = f"{self.header.text('general.architecture')}.attention."
        return self.header.number(key + "key_length") or usual, self.header.number(key + "value_length") or usual

    @cached_property
    def n_embd_out(self) -> int:
        """Floats of an embedding, which a model may project to another size than n_embd."""
        return self._int("n_embd_out")

    @cached_property
    def n_cls_out(self) -> int:
        """Outputs of a reranker's classifier; of no meaning for other models."""
        return self._int("n_cls_out")

    @property
    def has_classifier(self) -> bool:
        """Whether the file has the tensors of a reranker's classifier."""
        return any(name.startswith("cls.") for name in self.header.tensors)

    @cached_property
    def n_layer(self) -> int:
        return self._int("n_layer")

    @cached_property
    def n_mtp_heads(self) -> int:
        """Heads that predict tokens behind the next one, by its metadata; 0 as well where libllama has no use for them.

        ModelParams.mtp loads them.
        """
        return int(self.native.lib.lb_nextn_heads(self.handle))

    @cached_property
    def n_swa(self) -> int:
        """Size of the sliding attention window in tokens; 0 without one."""
        return self._int("n_swa")

    @cached_property
    def n_params(self) -> int:
        return self._int("n_params")

    @cached_property
    def size(self) -> int:
        """Bytes of all tensors."""
        return self._int("size")

    @cached_property
    def is_recurrent(self) -> bool:
        return bool(self._int("is_recurrent"))

    @cached_property
    def is_hybrid(self) -> bool:
        return bool(self._int("is_hybrid"))

    @cached_property
    def has_decoder(self) -> bool:
        return bool(self._int("has_decoder"))

    @cached_property
    def is_causal(self) -> bool:
        """Whether a token attends only to those before it. libllama assumes so where the file does not say."""
        return self.meta(f"{self.meta('general.architecture')}.attention.causal") != "false"

    @cached_property
    def desc(self) -> str:
        """For example `llama 135M Q4_1`."""
        buffer = self.native.ffi.new("char[]", 256)
        self.native.lib.llama_model_desc(self.handle, buffer, 256)
        return self.native.text(buffer) or ""

    @cached_property
    def ftype(self) -> str:
        """The quantisation's name, for example `Q4_1`."""
        lib = self.native.lib
        if not self.native.has("llama_ftype_name"):
            return self.desc.split(" ", 2)[-1]  # behind architecture and size
        return self.native.text(lib.llama_ftype_name(lib.llama_model_ftype(self.handle))) or ""

    def meta(self, key: str) -> str | None:
        """A scalar or string of the file's metadata as text; None where it has none of that name."""
        ffi, value = self.native.ffi, self.native.lib.llama_model_meta_val_str
        name, size = key.encode(), 256
        while True:
            buffer = ffi.new("char[]", size)
            length = value(self.handle, name, buffer, size)
            if length < 0:
                return None
            if length < size:
                return bytes(ffi.buffer(buffer, length)).decode("utf-8", "replace")
            size = length + 1

    def chat_template(self, name: str | None = None) -> str | None:
        """The model's own chat template, or the one that it has under a name such as `tool_use`."""
        wanted = self.native.ffi.NULL if name is None else name.encode()
        return self.native.text(self.native.lib.llama_model_chat_template(self.handle, wanted))


class Loading:
    """A model that is being loaded, on a thread of its own. Owns what is loaded until `finish()` hands it on."""

    def __init__(
        self, native: Native, path: Path, header: gguf.Header, params: ModelParams, descriptor: int | None
    ) -> None:
        """`descriptor`: of a file to read in place of the one at `path`, which is closed in the end."""
        self._model = (native, path, header, params)
        self._descriptor = descriptor
        self._is_over = False
        try:
            self._load = _Load(native, path if descriptor is None else Path(f"/proc/self/fd/{descriptor}"), params)
        except BaseException:
            self._close()
            raise

    def finish(self, on_progress: Callable[[float], bool | None] | None = None) -> Model:
        """Wait for the model, once. Raises ModelLoadError; see Model.load."""
        native, path, header, params = self._model
        self._is_over = True
        try:
            handle = self._load.wait(on_progress)
        finally:
            self._close()
        if handle == native.ffi.NULL:
            raise ModelLoadError(f"{path} cannot be loaded: {self._load.reason()}")
        if params.repack and kernels(native):
            forget_pages(native)
        return Model(native, handle, path, header, params)

    def close(self) -> None:
        """Give the load up where nobody has waited for its end. Idempotent."""
        if self._is_over:
            return
        self._is_over, native = True, self._model[0]
        try:
            handle = self._load.wait(lambda _: False)
        finally:
            self._close()
        if handle != native.ffi.NULL:
            native.lib.llama_model_free(handle)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Load:
    """One load: the C parameters with all that they point at, and a thread that runs it."""

    def __init__(self, native: Native, path: Path, params: ModelParams) -> None:
        self._native = native
        self._path = os.fsencode(path)
        self._state = native.ffi.new("struct lb_load_state *")
        self._alive: list[Any] = []  # what the C struct points at
        self._params = self._fill(params)
        self._result: Any = native.ffi.NULL
        self._done = threading.Event()
        native.lib.lb_log_forget_error()
        self._thread = threading.Thread(target=self._run, name="model-load")
        self._thread.start()

    def _fill(self, params: ModelParams) -> Any:
        native, lib, ffi = self._native, self._native.lib, self._native.ffi
        c = lib.llama_model_default_params()
        c.n_gpu_layers = params.n_gpu_layers
        if native.has("LLAMA_LOAD_MODE_AUTO"):
            c.load_mode = getattr(lib, f"LLAMA_LOAD_MODE_{params.load_mode.name}")
        else:
            c.use_mmap = params.load_mode in (LoadMode.AUTO, LoadMode.MMAP, LoadMode.MMAP_MLOCK)
            c.use_mlock = params.load_mode in (LoadMode.MLOCK, LoadMode.MMAP_MLOCK)
        c.split_mode = getattr(lib, f"LLAMA_SPLIT_MODE_{params.split_mode.name}")
        c.main_gpu = params.main_gpu
        c.use_extra_bufts = params.repack
        c.check_tensors = params.check_tensors
        c.no_host = params.no_host
        c.vocab_only = params.vocab_only
        if params.mtp:
            lib.lb_nextn_load(ffi.addressof(c))
        c.progress_callback = lib.lb_load_progress
        c.progress_callback_user_data = self._state
        if params.tensor_split:
            room = lib.llama_max_devices()
            if len(params.tensor_split) > room:
                raise ModelLoadError(
                    f"tensor_split has {len(params.tensor_split)} values; there is room for {room} devices"
                )
            c.tensor_split = self._keep(
                ffi.new("float[]", [*params.tensor_split, *[0.0] * (room - len(params.tensor_split))])
            )
        if params.devices is not None:
            handles = [device_handle(native, name) for name in params.devices]
            c.devices = self._keep(ffi.new("ggml_backend_dev_t[]", [*handles, ffi.NULL]))
        if params.tensor_buffers:
            c.tensor_buft_overrides = self._tensor_buffers(params.tensor_buffers)
        if params.kv_overrides:
            c.kv_overrides = self._keep(_kv_overrides(native, params.kv_overrides))
        return c

    def _tensor_buffers(self, chosen: tuple[tuple[str, str], ...]) -> Any:
        """The C array, ended by an empty pattern. Raises ModelLoadError for a buffer type that is not there."""
        kinds = buffer_types(self._native)
        array = self._keep(self._native.ffi.new("struct llama_model_tensor_buft_override[]", len(chosen) + 1))
        for entry, (pattern, name) in zip(array, chosen, strict=False):
            if name not in kinds:
                raise ModelLoadError(f"no buffer type {name!r} for {pattern}: there are {', '.join(kinds)}")
            entry.pattern = self._keep(self._native.ffi.new("char[]", pattern.encode()))
            entry.buft = kinds[name]
        return array

    def _keep(self, value: Any) -> Any:
        self._alive.append(value)
        return value

    def _run(self) -> None:
        try:
            self._result = self._native.lib.llama_model_load_from_file(self._path, self._params)
        finally:
            self._done.set()

    def wait(self, on_progress: Callable[[float], bool | None] | None) -> Any:
        """The llama_model, or NULL. The load runs beside so that progress is told from the calling thread."""
        try:
            while not self._done.wait(REPORT_SECONDS):
                if on_progress and on_progress(self._state.progress_ppm / 1e6) is False:
                    self._state.cancel = 1
        except BaseException:
            self._state.cancel = 1
            raise
        finally:
            self._thread.join()
        if on_progress and self._result != self._native.ffi.NULL:
            on_progress(1.0)
        return self._result

    def reason(self) -> str:
        """Why libllama refused, by the first error it logged."""
        if self._state.cancel:
            return "the load was stopped"
        return self._native.first_error().removeprefix("llama_model_load: error loading model: ")


def type_sizes(native: Native) -> dict[int, tuple[int, int]]:
    """ggml type → (elements in a block, bytes of a block), for the types that this libggml has."""
    lib = native.lib
    blocks = {kind: lib.ggml_blck_size(kind) for kind in range(lib.GGML_TYPE_COUNT)}
    return {kind: (block, lib.ggml_type_size(kind)) for kind, block in blocks.items() if block > 0}


def _kv_overrides(native: Native, overrides: tuple[tuple[str, int | float | bool | str], ...]) -> Any:
    """The C array, ended by an empty key. Raises ModelLoadError for a name or text that it has no room for."""
    lib = native.lib
    array = native.ffi.new("struct llama_model_kv_override[]", len(overrides) + 1)
    for entry, (key, value) in zip(array, overrides, strict=False):
        texts = [key.encode(), value.encode()] if isinstance(value, str) else [key.encode()]
        if any(len(text) > MAX_KV_TEXT for text in texts):
            raise ModelLoadError(f"override {key!r}: names and texts may have {MAX_KV_TEXT} bytes")
        entry.key = texts[0]
        match value:
            case bool():
                entry.tag, entry.val_bool = lib.LLAMA_KV_OVERRIDE_TYPE_BOOL, value
            case int():
                entry.tag, entry.val_i64 = lib.LLAMA_KV_OVERRIDE_TYPE_INT, value
            case float():
                entry.tag, entry.val_f64 = lib.LLAMA_KV_OVERRIDE_TYPE_FLOAT, value
            case str():
                entry.tag, entry.val_str = lib.LLAMA_KV_OVERRIDE_TYPE_STR, texts[1]
    return array
