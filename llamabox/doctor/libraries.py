"""What was built: the native libraries, tried in children."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llamabox.doctor.child import Told
from llamabox.doctor.findings import Finding, Level, ok, problem, warning
from llamabox.errors import LlamaboxError, NativeMissing

AREA, IMAGES, TEST = "libraries", "images", "self-test"
REBUILD = 'run "python build_native.py"'
KILLED_FOR_MEMORY = "the kernel ends processes so where memory runs out: see what is said of memory here"
SLOW = 5.0
"""Seconds after which the self-test, which computes next to nothing, is told to be slow."""

PACKAGES = {
    "libcuda.so": "it comes with NVIDIA's driver: install that; start a container with --gpus all, and have the NVIDIA "
    "container toolkit on the host",
    "libcudart.so": "it is of CUDA's runtime: install the version that the libraries were built with",
    "libcublas": "it is of CUDA's runtime: install the version that the libraries were built with",
    "libnccl.so": "it is NVIDIA's NCCL: install the version that the libraries were built with",
    "libamdhip64.so": "it is of ROCm: install the version that the libraries were built with",
    "libhipblas": "it is of ROCm: install the version that the libraries were built with",
    "librocblas": "it is of ROCm: install the version that the libraries were built with",
    "libvulkan.so": "it is Vulkan's loader: Debian has it in libvulkan1, and drivers in mesa-vulkan-drivers",
    "libgomp.so": "it is GCC's OpenMP: Debian has it in libgomp1",
    "libstdc++.so": "it is C++'s library: Debian has it in libstdc++6",
}
"""Libraries of the system by the beginnings of their names, and where they come from."""


class Libraries:
    """What a child told of libllama and its devices, for other checks as well."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.prefix: Mapping[str, Any] = told.done("prefix") or {}
        found = told.done("devices") or {}
        self.devices: Sequence[Mapping[str, Any]] = found.get("devices", ())
        self.system_info: str = found.get("system_info", "")
        self.kernels: str | None = found.get("kernels")
        self.said: Sequence[str] = found.get("said", ())

    @property
    def backend(self) -> str:
        """The backend that was built; empty where nothing is known of it."""
        return str(self.prefix.get("backend") or "")

    @property
    def portable(self) -> bool:
        return bool(self.prefix.get("portable"))

    @property
    def images_need_avx2(self) -> bool:
        return bool((self.prefix.get("images") or {}).get("portable"))

    @property
    def illegal_instruction(self) -> bool:
        return self.told.status == -signal.SIGILL

    @property
    def gpus(self) -> list[Mapping[str, Any]]:
        return [device for device in self.devices if device["kind"] in ("gpu", "igpu")]


def examine(libraries: Libraries) -> Iterator[Finding]:
    told = libraries.told
    if (found := libraries.prefix) and told.done("load"):
        kind = f"{libraries.backend}, portable" if libraries.portable else libraries.backend
        kernels = libraries.kernels or "none"
        yield ok(
            AREA,
            f"{found['path']}: backend {kind}, llama.cpp {found['version']} ({found['commit']}), kernels: {kernels}",
            **{**found, "kernels": libraries.kernels},
        )
        for lost in found.get("lacks") or ():
            yield warning(
                AREA, f"this llama.cpp is an older one: {lost}", f"{REBUILD}, without --llama-cpp, for a newer one"
            )
    for step in ("prefix", "load", "devices"):
        if (error := told.error(step)) is not None:
            yield Finding(Level.PROBLEM, AREA, *_refused(error))
    if told.ended_in is not None and not told.ended_in.startswith(("compute ", "file ")):
        yield problem(AREA, f"the process that loads them {told.end} (in: {told.ended_in})", _advice(told))


def examine_images(told: Told, wanted: bool) -> Iterator[Finding]:
    """The library that draws. `wanted`: the server is to draw, so that it must be there."""
    if (found := told.done("load")) is not None:
        yield ok(IMAGES, f"stable-diffusion.cpp {found['version']}", version=found["version"])
        return
    level = Level.PROBLEM if wanted else Level.WARNING
    error = told.error("load")
    if isinstance(error, NativeMissing) and not wanted:
        yield ok(IMAGES, "built without libstable-diffusion: models that draw are not served")
    elif error is not None:
        yield Finding(level, IMAGES, *_refused(error))
    elif told.ended_in is not None:
        yield Finding(level, IMAGES, f"the process that loads libstable-diffusion {told.end}", _advice(told))


def self_test(libraries: Libraries) -> Iterator[Finding]:
    """A made model on each device."""
    told = libraries.told
    for device in libraries.devices:
        name = device["name"]
        step = f"compute {name}"
        if (error := told.error(step)) is not None:
            yield problem(TEST, f"{name}: {error.message}", _other_device(device["kind"]))
        elif (found := told.done(step)) is not None and found["tokens"] != found["expected"]:
            yield problem(
                TEST,
                f"{name} computes wrongly: a made model wrote {found['tokens']}, and should write {found['expected']}",
                _other_device(device["kind"]) + ". Please report it, with the output of --json",
                device=name,
            )
        elif found is not None:
            text = f"{name}: loaded and computed a made model in {found['seconds']:.1f} s, its text is right"
            facts = {"device": name, "seconds": found["seconds"]}
            if found["seconds"] > SLOW:
                advice = "see what else this machine does, and its quota; a driver may compile its kernels once"
                yield warning(TEST, text, advice, **facts)
            else:
                yield ok(TEST, text, **facts)
    if told.ended_in is not None and told.ended_in.startswith("compute "):
        name = told.ended_in.removeprefix("compute ")
        yield problem(TEST, f"{name}: the process that computes a made model {told.end}", _advice(told))


def _other_device(kind: str) -> str:
    if kind == "cpu":
        return f"{REBUILD} on this machine, and see whether it is so with --without-added"
    return "see whether it is so with another driver; -dev none computes on the CPU"


def _refused(error: LlamaboxError) -> tuple[str, str]:
    """What is wrong with the libraries and what to do, of an error of llamabox.bindings.prefix or ffi."""
    before, found, _ = error.message.partition(": cannot open shared object file")
    if found:
        name = before.rpartition("(")[2].strip()
        return f"they need {name}, which is not here", _whence(name)
    text, found, advice = error.message.partition(': run "')
    advice = f'run "{advice}' if found else REBUILD
    if isinstance(error, NativeMissing):
        advice += "; or name the folder that has them with --native DIR (LLAMABOX_NATIVE)"
    return text, advice


def _whence(library: str) -> str:
    for beginning, advice in PACKAGES.items():
        if library.startswith(beginning):
            return advice
    return f"install the package that has it, or {REBUILD} on this machine"


def _advice(told: Told) -> str:
    if told.status == -signal.SIGILL:
        return f"{REBUILD} on this machine, or with --portable for every processor"
    if told.status == -signal.SIGKILL or any("MemoryError" in line or "bad_alloc" in line for line in told.stderr):
        return KILLED_FOR_MEMORY
    if any(line.startswith(("ModuleNotFoundError:", "ImportError:")) for line in told.stderr):
        return (
            "a package that llamabox needs is missing or broken: install llamabox anew with pip (pip check tells more)"
        )
    return f"{REBUILD}; if it is so again, please report it with the output of --json"
