"""GPUs: those that this machine has, those that the libraries were built for, and those that the libraries found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from llamabox.doctor.findings import Finding, ok, problem, warning
from llamabox.doctor.libraries import Libraries
from llamabox.doctor.system import System

AREA = "devices"
VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD"}
"""Makers of GPUs by their number on the bus. Intel's are left out: most of them are a display's alone."""

BACKENDS = {"NVIDIA": "cuda", "AMD": "rocm"}
"""The backend for a maker's GPUs; vulkan does for all."""

FILES = {
    "cuda": ("dev/nvidia[0-9]*", "dev/nvidiactl"),
    "rocm": ("dev/kfd", "dev/dri/renderD*"),
    "vulkan": ("dev/dri/renderD*",),
}
"""Files through which a backend reaches its devices."""

DRIVERS = {
    "cuda": "install NVIDIA's driver (nvidia-smi shows whether it works); start a container with --gpus all",
    "rocm": "install AMD's driver (rocminfo shows whether it works); start a container with --device /dev/kfd "
    "--device /dev/dri",
    "vulkan": "install a driver (Debian: mesa-vulkan-drivers, or NVIDIA's; vulkaninfo shows whether it works); start a "
    "container with --device /dev/dri",
    "metal": "Metal is macOS's own: build on the machine that has the GPU",
}
"""What to do about a backend without a device."""

MIB = 1 << 20


def examine(system: System, libraries: Libraries, devices: tuple[str, ...], n_gpu_layers: int) -> Iterator[Finding]:
    """`devices` and `n_gpu_layers` are the server's options (-dev, -ngl)."""
    makers = makers_of_gpus(system)
    for device in libraries.devices:
        memory = f"{device['memory_total'] // MIB} MiB, {device['memory_free'] // MIB} MiB free"
        text = f"{device['name']}: {device['description']} ({device['kind']}, {device['backend']}, {memory})"
        yield ok(AREA, text, **device)
    backend = libraries.backend
    if backend not in ("", "cpu") and not libraries.gpus:
        yield problem(
            AREA,
            f"built for {backend}, the libraries find no device of it: {_why(system, backend, makers, libraries)}",
            DRIVERS.get(backend, "install the driver"),
            backend=backend,
        )
    elif backend == "cpu" and makers:
        wanted = sorted({BACKENDS[maker] for maker in makers})
        yield warning(
            AREA,
            f"this machine has a GPU of {' and '.join(makers)}, which libraries built for the CPU alone leave idle",
            f"with its toolkit installed: LLAMABOX_BACKEND={wanted[0]} pip install -e . (or vulkan)",
            makers=makers,
        )
    yield from _closed(system, backend)
    if libraries.devices:
        yield from _named(libraries, devices, n_gpu_layers)


def makers_of_gpus(system: System) -> list[str]:
    """Makers of the GPUs on the bus; what a virtual machine shows as a display alone has no maker here."""
    found = set()
    for folder in system.there("sys/bus/pci/devices/*"):
        if _first(folder / "class").startswith("0x03") and (maker := VENDORS.get(_first(folder / "vendor"))):
            found.add(maker)
    return sorted(found)


def _why(system: System, backend: str, makers: list[str], libraries: Libraries) -> str:
    """What stands in the way, as far as it can be seen."""
    maker = next((maker for maker, kind in BACKENDS.items() if kind == backend), None)
    if libraries.said:
        return libraries.said[0]
    if not any(system.there(pattern) for pattern in FILES.get(backend, ())):
        names = " and ".join(f"/{pattern}" for pattern in FILES.get(backend, ()))
        here = f"the bus shows one of {maker}" if maker in makers else "none is seen on the bus"
        return f"{names} are not here, as without a driver ({here})" if names else here
    return "its driver does not show one"


def _closed(system: System, backend: str) -> Iterator[Finding]:
    """Files of devices that this user may not open."""
    for path in [path for pattern in FILES.get(backend, ()) for path in system.there(pattern)]:
        if not os.access(path, os.R_OK | os.W_OK):
            yield problem(
                AREA,
                f"this user may not open {path}",
                "add the user to the file's group (usermod -aG render,video USER; docker --group-add)",
                path=str(path),
            )


def _named(libraries: Libraries, devices: tuple[str, ...], n_gpu_layers: int) -> Iterator[Finding]:
    there = [device["name"] for device in libraries.devices]
    for name in devices:
        if name != "none" and name not in there and not name.startswith("RPC"):
            yield problem(
                AREA, f"-dev names {name}, and there are {', '.join(there)}", "give -dev a device that is there"
            )
    if n_gpu_layers > 0 and not libraries.gpus:
        yield warning(AREA, f"-ngl {n_gpu_layers} has no effect: there is no GPU", "leave it out, or build for the GPU")


def _first(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip().lower()
    except OSError:
        return ""
