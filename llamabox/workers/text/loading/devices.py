"""The devices that a text worker computes on: ggml's devices of this machine, and those of RPC servers."""

from __future__ import annotations

import logging
from dataclasses import replace

from llamabox.bindings import backend
from llamabox.bindings.ffi import Native
from llamabox.bindings.model import LoadMode, ModelParams, SplitMode
from llamabox.bindings.rpc import devices as rpc_devices
from llamabox.bindings.rpc.devices import RPC
from llamabox.errors import ModelLoadError, OptionsError
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.loading.placement import Placement

logger = logging.getLogger(__name__)

NO_DEVICES = ("none",)
"""The devices of `-dev none`."""


def require_device(config: TextConfig, native: Native) -> None:
    """Raise NativeError where the libraries were built for GPUs and find none, unless the CPU or a server is asked for.

    See backend.require_gpu.
    """
    if config.devices != NO_DEVICES and config.n_gpu_layers != 0 and not config.rpc_servers:
        backend.require_gpu(native, "let the CPU compute with -dev none")


def start_backends(config: TextConfig, native: Native) -> Placement | None:
    """Start ggml and make the RPC servers' devices known to it. With servers or a GPU: what hears where the model goes.

    Raises NativeError where a server has no device. One that does not answer ends the process.
    """
    backend.start(native)
    remote = [
        (name, endpoint, index)
        for endpoint in config.rpc_servers
        for index, name in enumerate(rpc_devices.add_server(native, endpoint))
    ]
    return Placement(remote, config.tensor_buffers) if remote or has_gpu(native) else None


def chosen_devices(config: TextConfig, native: Native, option: str = "--device") -> tuple[str, ...] | None:
    """The devices that `option` names; None for all. Raises OptionsError for one that is not there, or is the CPU."""
    if not config.devices:
        return None
    if config.devices == NO_DEVICES:
        return ()
    there = {device.name: device for device in backend.devices(native)}
    for name in config.devices:
        if name not in there:
            names = ", ".join(other for other, device in there.items() if device.kind != "cpu")
            raise OptionsError(f"{option} {name}: there is no such device, but {names or 'the CPU alone'}")
        if there[name].kind == "cpu":
            raise OptionsError(f"{option} {name}: the CPU takes the layers that -ngl leaves; name others, or none")
    return config.devices


def has_gpu(native: Native) -> bool:
    """Whether this machine has a GPU.

    `llama_supports_gpu_offload` does not ask that: it is true of any build with RPC. Nor does the kind of an RPC
    server's device, which ggml calls a GPU whatever it is. They are taken for CPUs: texts are then those that one
    machine writes, and `-fa on` is there for servers that have GPUs.
    """
    return any(kind in ("gpu", "igpu") and name != RPC for name, kind in backend.kinds(native))


def uses_gpu(config: TextConfig, native: Native) -> bool:
    """Whether a GPU of this machine may compute: even with `-ngl 0` it takes large batches. Not with `-dev none`."""
    return config.devices != NO_DEVICES and has_gpu(native)


def offloads(config: TextConfig, native: Native) -> bool:
    """Whether something may be computed elsewhere than on the CPUs of this machine."""
    return config.devices != NO_DEVICES and can_offload(config, native)


def can_offload(config: TextConfig, native: Native) -> bool:
    """Whether there is a device beside the CPUs of this machine."""
    return bool(config.rpc_servers) or has_gpu(native)


def model_params(config: TextConfig, native: Native, *, devices_option: str = "--device") -> ModelParams:
    """Parameters of the load. Options that split a model have no effect without a GPU, and a warning says so."""
    room = native.lib.llama_max_devices()
    if len(config.tensor_split) >= room:
        raise ModelLoadError(f"-ts has {len(config.tensor_split)} shares, but there may be {room - 1} at most")
    plain = ModelParams(
        n_gpu_layers=config.n_gpu_layers,
        load_mode=LOAD_MODES[config.mmap, config.mlock],
        repack=config.repack,
        check_tensors=config.check_tensors,
        no_host=config.no_host,
        tensor_buffers=config.tensor_buffers,
        kv_overrides=tuple(dict(config.kv_overrides).items()),  # libllama would take the first of two
    )
    if config.tensor_buffers and not offloads(config, native):
        logger.warning("-ot, -cmoe, -ncmoe and -ncffn change nothing: all weights are the CPU's without a GPU")
    split = replace(
        plain,
        split_mode=SplitMode(config.split_mode),
        main_gpu=config.main_gpu,
        tensor_split=config.tensor_split,
        devices=chosen_devices(config, native, devices_option),
    )
    if split != plain and not can_offload(config, native):
        logger.warning("-sm, -ts, -mg and %s have no effect: there is no GPU and no RPC server", devices_option)
        return plain
    return split


LOAD_MODES = {
    (True, False): LoadMode.AUTO,
    (True, True): LoadMode.MMAP_MLOCK,
    (False, False): LoadMode.NONE,
    (False, True): LoadMode.MLOCK,
}
"""libllama's name for (mmap, mlock)."""
