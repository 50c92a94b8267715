"""The one door to C: everything else in this package goes through the `Native` that `load()` returns."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llamabox.bindings import prefix as prefixes
from llamabox.bindings.prefix import REBUILD, Prefix
from llamabox.errors import NativeMismatch

INTERFACE = 13
"""LB_INTERFACE of native/helper/llamabox_helper.h that this package is written for."""

IMAGES_INTERFACE = 1
"""LB_IMAGES_INTERFACE of native/helper/llamabox_diffusion.h likewise."""

FIRST_ERROR = 1024
"""Bytes that are kept of the first error."""


class Native:
    """The libraries of one prefix, loaded. A process can have one prefix loaded only; keep it for as long as it runs.

    `lib` has the C functions and constants, `ffi` makes and reads C values. Calls release the GIL.
    """

    def __init__(self, prefix: Prefix, ffi: Any, lib: Any) -> None:
        self.prefix = prefix
        self.ffi = ffi
        self.lib = lib

    def has(self, name: str) -> bool:
        """Whether the library declares a function or constant that older ones lack (native/build/optional.py)."""
        return hasattr(self.lib, name)

    def first_error(self) -> str:
        """The first line of level ERROR that was logged since `lib.lb_log_forget_error()`."""
        buffer = self.ffi.new("char[]", FIRST_ERROR)
        length = self.lib.lb_log_first_error(buffer, FIRST_ERROR)
        line = bytes(self.ffi.buffer(buffer, length)).decode("utf-8", "replace").strip()
        return line or "the library does not say why"

    def text(self, pointer: Any) -> str | None:
        """A `const char *` of the library's, as text; None for NULL. What is not UTF-8 becomes U+FFFD."""
        return None if pointer == self.ffi.NULL else self.ffi.string(pointer).decode("utf-8", "replace")


class Owned:
    """Owns one native object and frees it once: by `close()`, which is idempotent, or at the end of a `with`."""

    def __init__(self, handle: Any, free: Callable[[Any], None], name: str) -> None:
        """`name` is for the assertion that a closed one is not used."""
        self._handle: Any = handle
        self._free = free
        self._name = name

    @property
    def is_open(self) -> bool:
        return self._handle is not None

    @property
    def handle(self) -> Any:
        """The C pointer."""
        assert self._handle is not None, f"the {self._name} is closed"
        return self._handle

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            self._free(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(prefix: str | None = None) -> Native:
    """Load the native prefix: the argument, else $LLAMABOX_NATIVE, else the one inside the package.

    Raises NativeMissing when nothing was built there, NativeMismatch when the libraries do not belong to the module
    compiled for them: no code of theirs has run by then, except for the last check.
    """
    native = _open_module(prefixes.read(prefix))
    _check_interface(native, native.lib.LB_INTERFACE, INTERFACE)
    _check_origin(native, "libllama")
    return native


def load_images(prefix: str | None = None) -> Native:
    """Load libstable-diffusion, which has another ggml inside: never in a process that has called `load()`.

    Raises NativeMissing also where a prefix was built without it.
    """
    native = _open_module(prefixes.read(prefix).images)
    _check_interface(native, native.lib.LB_IMAGES_INTERFACE, IMAGES_INTERFACE)
    _check_origin(native, "libstable-diffusion")
    return native


def _open_module(prefix: Prefix) -> Native:
    prefixes.verify(prefix)
    module = _import_module(prefix)
    return Native(prefix, module.ffi, module.lib)


def _check_interface(native: Native, found: int, expected: int) -> None:
    if found != expected:
        path = native.prefix.path
        raise NativeMismatch(f"{path} was built for another version of llamabox: " + REBUILD.format(path))


def _import_module(prefix: Prefix) -> Any:
    name = prefix.module.name.partition(".")[0]
    spec = importlib.util.spec_from_file_location(name, prefix.module)
    if spec is None or spec.loader is None:
        raise NativeMismatch(f"{prefix.module} is not an extension module: " + REBUILD.format(prefix.path))
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as exc:
        raise NativeMismatch(f"{prefix.module} does not load ({exc}): {_remedy(str(exc), prefix)}") from exc
    return module


def _remedy(why: str, prefix: Prefix) -> str:
    """What makes a module load again: another build has no use where the system lacks a library, such as CUDA's."""
    library, is_missing, _ = why.partition(": cannot open shared object file")
    if is_missing and not (prefix.path / library).exists():
        return f"install what {library} belongs to, or name its folder in LD_LIBRARY_PATH"
    return REBUILD.format(prefix.path)


def _check_origin(native: Native, library: str) -> None:
    """Refuse when the dynamic loader took another library than the verified one (LD_PRELOAD, another prefix)."""
    loaded = Path(native.text(native.lib.lb_library_path()) or "")
    if not loaded.is_absolute() or not os.path.samefile(loaded.parent, native.prefix.path):
        raise NativeMismatch(
            f"this process has {library} from {loaded}, not from {native.prefix.path}: unset LD_PRELOAD, "
            "and load one prefix in a process"
        )


def build_info(native: Native) -> dict[str, Any]:
    """build.json of the loaded prefix, with `version` as the loaded library itself says it.

    `build` is llama.cpp's name for it, `b<number>-<commit>`, without the number where the sources do not know it.
    """
    manifest = native.prefix.manifest
    build = f"b{manifest['number'] or ''}-{manifest['commit']}"
    version = native.text(native.lib.llama_version()) if native.has("llama_version") else manifest["version"]
    return {**manifest, "version": version, "build": build, "lacks": manifest.get("lacks", [])}
