"""The one door to C: everything else in this package goes through the `Native` that `load()` returns."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from llamabox.bindings import prefix as prefixes
from llamabox.bindings.prefix import REBUILD, Prefix
from llamabox.errors import NativeMismatch

INTERFACE = 9
"""LB_INTERFACE of native/helper/llamabox_helper.h that this package is written for."""

IMAGES_INTERFACE = 1
"""LB_IMAGES_INTERFACE of native/helper/llamabox_diffusion.h likewise."""


class Native:
    """The libraries of one prefix, loaded. A process can have one prefix loaded only; keep it for as long as it runs.

    `lib` has the C functions and constants, `ffi` makes and reads C values. Calls release the GIL.
    """

    def __init__(self, prefix: Prefix, ffi: Any, lib: Any) -> None:
        self.prefix = prefix
        self.ffi = ffi
        self.lib = lib

    def text(self, pointer: Any) -> str | None:
        """A `const char *` of the library's, as text; None for NULL. What is not UTF-8 becomes U+FFFD."""
        return None if pointer == self.ffi.NULL else self.ffi.string(pointer).decode("utf-8", "replace")


def load(prefix: str | None = None) -> Native:
    """Load the native prefix: the argument, else $LLAMABOX_NATIVE, else the one inside the package.

    Raises NativeMissing when nothing was built there, NativeMismatch when the libraries do not belong to the module
    compiled for them: no code of theirs has run by then, except for the last check.
    """
    native = open_module(prefixes.read(prefix))
    check_interface(native, native.lib.LB_INTERFACE, INTERFACE)
    check_origin(native, "libllama")
    return native


def load_images(prefix: str | None = None) -> Native:
    """The same for libstable-diffusion, which has another ggml inside: never in a process that has `load()`ed.

    Raises NativeMissing also where a prefix was built without it.
    """
    native = open_module(prefixes.read(prefix).images)
    check_interface(native, native.lib.LB_IMAGES_INTERFACE, IMAGES_INTERFACE)
    check_origin(native, "libstable-diffusion")
    return native


def open_module(prefix: Prefix) -> Native:
    prefixes.verify(prefix)
    module = import_module(prefix)
    return Native(prefix, module.ffi, module.lib)


def check_interface(native: Native, found: int, expected: int) -> None:
    if found != expected:
        path = native.prefix.path
        raise NativeMismatch(f"{path} was built for another version of llamabox: " + REBUILD.format(path))


def import_module(prefix: Prefix) -> Any:
    name = prefix.module.name.partition(".")[0]
    spec = importlib.util.spec_from_file_location(name, prefix.module)
    if spec is None or spec.loader is None:
        raise NativeMismatch(f"{prefix.module} is not an extension module: " + REBUILD.format(prefix.path))
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as exc:
        raise NativeMismatch(f"{prefix.module} does not load ({exc}): " + REBUILD.format(prefix.path)) from exc
    return module


def check_origin(native: Native, library: str) -> None:
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
    return {**manifest, "version": native.text(native.lib.llama_version()), "build": build}
