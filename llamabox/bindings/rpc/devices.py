"""ggml's RPC backend, client side: the devices of other machines. Its functions are reached by name."""

from __future__ import annotations

from llamabox.bindings.backend import proc_address
from llamabox.bindings.ffi import Native
from llamabox.errors import NativeError

RPC = "RPC"
"""The backend's name, as that of its devices."""


def add_server(native: Native, endpoint: str) -> list[str]:
    """Make the devices of the RPC server at `host:port` this process' own; their ggml names, in its order.

    After backend.start() and before a model is loaded. The server must be known to answer: ggml connects here, and
    aborts the process where it cannot. Raises NativeError where the libraries have no RPC, or the server no device.
    """
    lib = native.lib
    add = proc_address(native, RPC, "ggml_backend_rpc_add_server", "ggml_backend_reg_t (*)(const char *)")
    if add is None:
        raise NativeError("the native libraries were built without RPC, which --rpc needs")
    registry = add(endpoint.encode())
    if registry == native.ffi.NULL:
        raise NativeError(f"the RPC server {endpoint} has no device")
    devices = [lib.ggml_backend_reg_dev_get(registry, i) for i in range(lib.ggml_backend_reg_dev_count(registry))]
    for device in devices:
        lib.ggml_backend_device_register(device)
    return [native.text(lib.ggml_backend_dev_name(device)) or "" for device in devices]
