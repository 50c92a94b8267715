"""Starting ggml and libllama in this process, and the devices they found."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from llamabox.bindings.ffi import Native
from llamabox.errors import NativeError


class Numa(StrEnum):
    """How ggml places threads on machines with several memory nodes."""

    DISABLED = "disabled"
    DISTRIBUTE = "distribute"
    ISOLATE = "isolate"
    NUMACTL = "numactl"


@dataclass(frozen=True, slots=True)
class Device:
    """A ggml device. Memory is in bytes, as it was when the device was listed."""

    name: str
    description: str
    kind: str  # cpu, gpu, igpu, accel, other
    backend: str
    memory_free: int
    memory_total: int


def start(native: Native, numa: Numa = Numa.DISABLED) -> None:
    """Route the native log into the ring (see bindings.log), find the backends and kernels, initialise.

    Calling it again is harmless. The calls below keep state per process and are not thread-safe: before any model
    is loaded.
    """
    lib = native.lib
    lib.lb_log_install()
    if lib.ggml_backend_reg_count() == 0:  # a portable build: its backends are loadable files in the prefix
        lib.ggml_backend_load_all_from_path(os.fsencode(native.prefix.path))
    if lib.ggml_backend_dev_count() == 0:
        raise NativeError(f"ggml finds no device, not even a CPU backend, in {native.prefix.path}")
    lib.lb_use_kernels()
    lib.llama_backend_init()
    if numa is not Numa.DISABLED:
        lib.llama_numa_init(getattr(lib, f"GGML_NUMA_STRATEGY_{numa.name}"))


def devices(native: Native) -> list[Device]:
    """All devices, in ggml's order."""
    lib, ffi = native.lib, native.ffi
    free, total = ffi.new("size_t *"), ffi.new("size_t *")
    found = []
    for index, (backend, kind) in enumerate(kinds(native)):
        device = lib.ggml_backend_dev_get(index)
        lib.ggml_backend_dev_memory(device, free, total)
        found.append(
            Device(
                name=native.text(lib.ggml_backend_dev_name(device)) or "",
                description=native.text(lib.ggml_backend_dev_description(device)) or "",
                kind=kind,
                backend=backend,
                memory_free=free[0],
                memory_total=total[0],
            )
        )
    return found


def kinds(native: Native) -> list[tuple[str, str]]:
    """Backend and kind of each device. Unlike `devices`, it does not ask RPC servers for their memory."""
    lib = native.lib
    names = {getattr(lib, f"GGML_BACKEND_DEVICE_TYPE_{kind.upper()}"): kind for kind in ("cpu", "gpu", "igpu", "accel")}
    found = []
    for index in range(lib.ggml_backend_dev_count()):
        device = lib.ggml_backend_dev_get(index)
        backend = native.text(lib.ggml_backend_reg_name(lib.ggml_backend_dev_backend_reg(device))) or ""
        found.append((backend, names.get(lib.ggml_backend_dev_type(device), "other")))
    return found


def require_gpu(native: Native, way_out: str) -> None:
    """Raise NativeError where the libraries were built for GPUs and find none; `way_out` says what else there is.

    Else a machine whose driver is broken would compute on its CPU, at a tenth of the speed. What is said of it is the
    first error that was logged since `lb_log_forget_error`, so this is for the moment after ggml has started.
    """
    built = str(native.prefix.manifest["backend"])
    if built not in ("", "cpu") and not any(kind in ("gpu", "igpu") for _, kind in kinds(native)):
        raise NativeError(
            f"the libraries are built for {built} and find no device of it ({native.first_error()}): "
            f"mend its driver, or {way_out}"
        )


def device_handle(native: Native, name: str) -> Any:
    """The `ggml_backend_dev_t` of a device by its name. Raises NativeError naming those there are."""
    handle = native.lib.ggml_backend_dev_by_name(name.encode())
    if handle == native.ffi.NULL:
        names = ", ".join(device.name for device in devices(native))
        raise NativeError(f"no device {name!r}: there are {names}")
    return handle


def buffer_types(native: Native) -> dict[str, Any]:
    """ggml's buffer types by their names, one a device: where weights may be kept."""
    lib = native.lib
    found: dict[str, Any] = {}
    for index in range(lib.ggml_backend_dev_count()):
        kind = lib.ggml_backend_dev_buffer_type(lib.ggml_backend_dev_get(index))
        if kind != native.ffi.NULL:
            found[native.text(lib.ggml_backend_buft_name(kind)) or ""] = kind
    return found


def proc_address(native: Native, backend: str, function: str, ctype: str) -> Any:
    """A function that a backend offers by name, as the C function pointer type `ctype`; None where it has none."""
    registry = native.lib.ggml_backend_reg_by_name(backend.encode())
    if registry == native.ffi.NULL:
        return None
    address = native.lib.ggml_backend_reg_get_proc_address(registry, function.encode())
    return None if address == native.ffi.NULL else native.ffi.cast(ctype, address)


def system_info(native: Native) -> str:
    """libllama's line about the CPU features and backends in use."""
    return native.text(native.lib.llama_print_system_info()) or ""


def kernels(native: Native) -> str | None:
    """The instructions that the kernels of native/added use, such as "AVX-512 VNNI"; None where there are no kernels.

    They are multiplication with quantised weights and flash attention, in ggml's CPU backend. `start` installs them.
    """
    return native.text(native.lib.lb_kernels())


def has_attention_kernel(native: Native, cell_type: str, head_size: int) -> bool:
    """Whether the kernels have flash attention for keys, or values, of a type ("f16") and `head_size` elements."""
    kind = getattr(native.lib, f"GGML_TYPE_{cell_type.upper()}")
    return bool(native.lib.lb_attends(kind, head_size))
