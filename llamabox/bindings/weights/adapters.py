"""LoRA adapters and control vectors: what is put on top of a model's weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings.context import Context
from llamabox.bindings.ffi import Owned
from llamabox.bindings.files.adapter import check_lora
from llamabox.bindings.files.gguf import read_header
from llamabox.bindings.model import Model, type_sizes
from llamabox.errors import ModelLoadError

Vector = NDArray[np.float32]


class Lora(Owned):
    """One LoRA adapter in memory, made for one model.

    Load it before a context is made, which counts the adapters to size its graphs; close it after the last context that
    it was applied to, and before the model. Reading its properties is thread-safe.
    """

    def __init__(self, model: Model, path: str | Path) -> None:
        """Raises ModelLoadError with one line that says what is wrong with the file, or where it does not fit."""
        self.native = model.native
        self.path = Path(path)
        check_lora(self.path, read_header(self.path, type_sizes(self.native)), model)
        self.native.lib.lb_log_forget_error()
        handle = self.native.lib.llama_adapter_lora_init(model.handle, os.fsencode(path))
        if handle == self.native.ffi.NULL:
            raise ModelLoadError(f"{path} cannot be loaded: {self.native.first_error()}")
        super().__init__(handle, self.native.lib.llama_adapter_lora_free, "adapter")
        self.digest = _file_digest(self.path)

    def meta(self, key: str) -> str:
        """A value of the file's metadata as text; empty where it has none of that name."""
        ffi, value = self.native.ffi, self.native.lib.llama_adapter_meta_val_str
        size = max(0, value(self.handle, key.encode(), ffi.NULL, 0)) + 1
        buffer = ffi.new("char[]", size)
        value(self.handle, key.encode(), buffer, size)
        return self.native.text(buffer) or ""


def apply_loras(context: Context, scaled: Sequence[tuple[Lora, float]]) -> None:
    """Have `context` compute with these adapters at these scales, and no others, from the next decode on.

    On the context's thread; the adapters must be of its model and outlive it. The cells that are there stay as they
    were computed. A change costs the next decode a new reservation of its buffers: some milliseconds.
    """
    ffi, lib = context.native.ffi, context.native.lib
    handles = ffi.new("struct llama_adapter_lora *[]", [lora.handle for lora, _ in scaled])
    code = lib.llama_set_adapters_lora(context.handle, handles, len(scaled), ffi.new("float[]", [s for _, s in scaled]))
    assert code == 0, f"llama_set_adapters_lora returned {code}"


def set_control_vector(context: Context, vector: Vector, first: int, last: int) -> None:
    """Add row i - 1 of `vector`, shape [n_layer, n_embd], to what layer i puts out, for `first` <= i <= `last`.

    On the context's thread, before the first decode: cells that are there stay as they were computed. libllama copies
    the vector. It has none for layer 0, and none behind the last layer.
    """
    model = context.model
    assert vector.shape == (model.n_layer, model.n_embd), f"a control vector of the shape {vector.shape}"
    data = np.ascontiguousarray(vector, np.float32)
    pointer = context.native.ffi.from_buffer("float[]", data)
    code = context.native.lib.llama_set_adapter_cvec(context.handle, pointer, data.size, model.n_embd, first, last)
    if code != 0:
        raise ModelLoadError(f"the control vector cannot be applied to {model.path}: libllama refuses it")


def _file_digest(path: Path) -> bytes:
    """32 bytes that tell a file's content. Raises ModelLoadError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).digest()
    except OSError as exc:
        raise ModelLoadError(f"{path} cannot be loaded: {exc.strerror or exc}") from exc
