"""The devices that a text worker computes on: ggml's devices of this machine, and those of RPC servers."""

from __future__ import annotations

from llamabox.bindings import backend
from llamabox.bindings.ffi import Native
from llamabox.bindings.rpc import devices as rpc_devices
from llamabox.bindings.rpc.devices import RPC
from llamabox.errors import OptionsError
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.loading.placement import Placement


def start_backends(config: TextConfig, native: Native) -> Placement | None:
    """Start ggml and make the RPC servers' devices known to it. With servers: what hears where the model goes.

    Raises NativeError where a server has no device. One that does not answer ends the process.
    """
    backend.start(native)
    remote = [
        (name, endpoint, index)
        for endpoint in config.rpc_servers
        for index, name in enumerate(rpc_devices.add_server(native, endpoint))
    ]
    return Placement(remote) if remote else None


def chosen_devices(config: TextConfig, native: Native) -> tuple[str, ...] | None:
    """The devices of --device; None for all. Raises OptionsError for one that is not there or not to be chosen."""
    if not config.devices:
        return None
    if config.devices == ("none",):
        return ()
    there = {device.name: device for device in backend.devices(native)}
    for name in config.devices:
        if name not in there:
            names = ", ".join(other for other, device in there.items() if device.kind != "cpu")
            raise OptionsError(f"--device {name}: there is no such device, but {names or 'the CPU alone'}")
        if there[name].kind == "cpu":
            raise OptionsError(f"--device {name}: the CPU takes the layers that -ngl leaves; name others, or none")
    return config.devices


def has_gpu(native: Native) -> bool:
    """Whether this machine has a GPU, which decides how things are computed.

    `llama_supports_gpu_offload` does not ask that: it is true of any build with RPC. Nor does the kind of an RPC
    server's device, which ggml calls a GPU whatever it is. They are taken for CPUs: texts are then those that one
    machine writes, and `-fa on` is there for servers that have GPUs.
    """
    return any(kind in ("gpu", "igpu") and name != RPC for name, kind in backend.kinds(native))


def offloads(config: TextConfig, native: Native) -> bool:
    """Whether layers may be computed elsewhere than on the CPUs of this machine."""
    return bool(config.rpc_servers) or has_gpu(native)
