"""Questions about the native libraries: `python -m llamabox.workers.inspect QUESTION [PREFIX [RPC_SERVER…]]`.

A process of its own, because the one that asks (the command, later the server) loads no native code. Writes one JSON
object to stdout: `{"text": the answer}`, or an error as `errors.to_wire()`.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence

import orjson

import llamabox
from llamabox.bindings import backend
from llamabox.bindings.ffi import Native, build_info, load
from llamabox.bindings.rpc import devices as rpc_devices
from llamabox.errors import DOCTOR, LlamaboxError, to_wire


def main(question: str, prefix: str, servers: Sequence[str]) -> int:
    try:
        native = load(prefix or None)
        backend.start(native)
        for endpoint in servers:
            rpc_devices.add_server(native, endpoint)
        reply: object = {"text": ANSWERS[question](native)}
    except LlamaboxError as error:
        reply = to_wire(error)
    sys.stdout.buffer.write(orjson.dumps(reply))
    return 0


def version(native: Native) -> str:
    info = build_info(native)
    machine = f"{platform.system()} {platform.machine()}"
    build = f"commit {info['commit']}" + (f", build {info['number']}" if info["number"] else "")
    lines = [
        f"llamabox {llamabox.__version__}, Python {platform.python_version()}, {machine}",
        f"llama.cpp {info['version']}, {build}",
    ]
    kind = f"{info['backend']}, portable" if info["portable"] else info["backend"]
    lines.append(f"  backend {kind}")
    lines += [f"  {compiler}" for compiler in info["compiler"].values()]
    lines.append(f"  {' '.join(info['flags'])}")
    lines.append(f"  native libraries: {native.prefix.path}")
    lines += [f"  this llama.cpp is an older one: {lost}" for lost in info["lacks"]]
    return "\n".join(lines)


def system_info(native: Native) -> str:
    return backend.system_info(native).strip()


def list_devices(native: Native) -> str:
    lines = ["Available devices:"]
    for device in backend.devices(native):
        memory = f"{device.memory_total >> 20} MiB, {device.memory_free >> 20} MiB free"
        lines.append(f"  {device.name}: {device.description} ({device.kind}, {device.backend}, {memory})")
    built = str(native.prefix.manifest["backend"])
    if built != "cpu" and not any(kind in ("gpu", "igpu") for _, kind in backend.kinds(native)):
        lines.append(f"The libraries are built for {built}, and find no device of it.")
    return "\n".join([*lines, f"{DOCTOR}, which lets each of them compute"])


ANSWERS = {"version": version, "system_info": system_info, "list_devices": list_devices}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "", sys.argv[3:]))
