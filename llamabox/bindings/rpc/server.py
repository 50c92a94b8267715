"""ggml's RPC backend, serving side: lending a device of this machine to a client.

Its functions are reached through the backend registry, which works for linked and for loadable backends alike.
"""

from __future__ import annotations

import os
from typing import Any

from llamabox.bindings import backend
from llamabox.bindings.backend import Device
from llamabox.bindings.ffi import Native
from llamabox.errors import NativeError, OptionsError

FNV_START = 0xCBF29CE484222325
FNV_CHUNK = 1 << 20

_START_SERVER = "void (*)(const char *, const char *, size_t, size_t, ggml_backend_dev_t *)"
_GET_MEMORY = "void(ggml_backend_dev_t, size_t *, size_t *)"
_GET_MEMORY_INDEX = 2
"""Place of get_memory among the function pointers that a ggml_backend_device begins with (ggml-backend-impl.h)."""


def pick_device(native: Native, main_gpu: int) -> Device:
    """The GPU of that index; the CPU for -1, and for 0 where there is no GPU. Raises OptionsError naming the GPUs."""
    found = backend.devices(native)
    gpus = [device for device in found if device.kind in ("gpu", "igpu")]
    cpu = next((device for device in found if device.kind == "cpu"), None)
    if main_gpu < 0 or (main_gpu == 0 and not gpus):
        if cpu is None:
            raise NativeError("ggml finds no CPU device to lend")
        return cpu
    if main_gpu >= len(gpus):
        names = ", ".join(f"{index}: {device.name}" for index, device in enumerate(gpus)) or "no GPU"
        raise OptionsError(f"--rpc-server-main-gpu {main_gpu}: there is {names}; -1 lends the CPU")
    return gpus[main_gpu]


class LentDevice:
    """A device that is lent in part: this process' ggml reports `reserve` bytes less than it has, free and in all.

    ggml has no setting for it. A buffer that is held for nothing would do on a GPU, but the CPU device reports the
    machine's memory whatever is taken; so what the device answers is changed instead. Holds for the process' life.
    """

    def __init__(self, native: Native, device: Device, reserve: int) -> None:
        self._native = native
        self._handle = backend.device_handle(native, device.name)
        self._callback: Any = None
        self._reserve = reserve
        self.device = device
        if reserve:
            self._answer_less()

    def _answer_less(self) -> None:
        ffi = self._native.ffi
        total = self.device.memory_total
        if self._reserve >= total:
            raise OptionsError(
                f"--rpc-server-reserve-memory {self._reserve >> 20}: {self.device.name} has {total >> 20} MiB in all, "
                "and something must be left to lend"
            )
        functions = ffi.cast("void **", self._handle)
        original = functions[_GET_MEMORY_INDEX]
        ask = ffi.cast("void (*)(ggml_backend_dev_t, size_t *, size_t *)", original)

        def get_memory(handle: Any, free: Any, total: Any) -> None:
            ask(handle, free, total)
            free[0] = max(0, free[0] - self._reserve)
            total[0] = max(0, total[0] - self._reserve)

        self._callback = ffi.callback(_GET_MEMORY, get_memory)
        functions[_GET_MEMORY_INDEX] = ffi.cast("void *", self._callback)
        told = next(device for device in backend.devices(self._native) if device.name == self.device.name)
        if told.memory_total != total - self._reserve:
            functions[_GET_MEMORY_INDEX] = original
            raise NativeError("this ggml's devices are laid out differently: --rpc-server-reserve-memory cannot be had")
        self.device = told

    def serve(self, endpoint: str, cache: str | None, n_threads: int) -> None:
        """ggml's RPC server at `endpoint`, IPv4:port. One client after the other; returns when it cannot accept."""
        ffi = self._native.ffi
        start = backend.proc_address(self._native, "RPC", "ggml_backend_rpc_start_server", _START_SERVER)
        if start is None:
            raise NativeError(f"the libraries in {self._native.prefix.path} have no RPC backend")
        devices = ffi.new("ggml_backend_dev_t[]", [self._handle])
        folder = ffi.NULL if cache is None else ffi.new("char[]", os.fsencode(cache))
        start(endpoint.encode(), folder, n_threads, 1, devices)


def file_hash(native: Native, path: str) -> str:
    """The name that ggml's RPC server gives to a tensor's file. Raises OSError."""
    value, buffer = FNV_START, bytearray(FNV_CHUNK)
    at = native.ffi.from_buffer("uint8_t[]", buffer)
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(buffer):
            value = native.lib.lb_fnv(at, size, value)
    return f"{value:016x}"
