"""The CPU variants of a portable build: which of them each processor gets, and what it answers.

    python -m tests.native.variants PREFIX [VARIANT...]        Linux on x86-64, with a C compiler

A line for each file libggml-cpu-*.so: the processor that it is for is one whose CPUID names its features and no more.
masked_processor.c, which ggml's loader runs beside, answers so. Where this machine's processor has all of those
features, a server then says with the variant what France's capital is. The exit status is 1 where another file is
chosen, or no answer comes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from llamabox.demo import ensure_demo_model
from llamabox.doctor.processor import X86, flags_of
from tests.e2e.server_process import ServerProcess

AVX512 = "7.0.ebx.16 7.0.ebx.17 7.0.ebx.28 7.0.ebx.30 7.0.ebx.31"
FEATURES = {
    "SSE42": "1.0.ecx.20",
    "AVX": "1.0.ecx.28",
    "F16C": "1.0.ecx.29",
    "FMA": "1.0.ecx.12",
    "AVX2": "7.0.ebx.5",
    "BMI2": "7.0.ebx.8",
    "AVX_VNNI": "7.1.eax.4",
    "AVX512": AVX512,  # F, DQ, CD, BW, VL
    "AVX512_VBMI": "7.0.ecx.1",
    "AVX512_VNNI": "7.0.ecx.11",
    "AVX512_BF16": "7.1.eax.5",
    "AMX": "7.0.edx.24 7.0.edx.25",  # tiles, and products of bytes
}
"""ggml's names of what variants need, with CPUID's leaf, subleaf, register and bit."""

FLAGS = X86 | {"SSE42": "sse4_2", "AMX": "amx_int8"}
"""The kernel's names of the same."""

IVYBRIDGE = ("SSE42", "AVX", "F16C")
HASWELL = (*IVYBRIDGE, "FMA", "AVX2", "BMI2")
SKYLAKEX = (*HASWELL, "AVX512")
ZEN4 = (*SKYLAKEX, "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16")
PROCESSORS = {
    "x64": (),
    "sse42": ("SSE42",),
    "sandybridge": ("SSE42", "AVX"),
    "ivybridge": IVYBRIDGE,
    "piledriver": (*IVYBRIDGE, "FMA"),
    "haswell": HASWELL,
    "alderlake": (*HASWELL, "AVX_VNNI"),
    "skylakex": SKYLAKEX,
    "cannonlake": (*SKYLAKEX, "AVX512_VBMI"),
    "cascadelake": (*SKYLAKEX, "AVX512_VNNI"),
    "icelake": (*SKYLAKEX, "AVX512_VBMI", "AVX512_VNNI"),
    "cooperlake": (*SKYLAKEX, "AVX512_VNNI", "AVX512_BF16"),
    "zen4": ZEN4,
    "sapphirerapids": (*ZEN4, "AMX"),
}
"""What a variant's processor has, by the variant's name in llama.cpp's ggml/src/CMakeLists.txt."""

CHOSEN = """
from llamabox.bindings import backend, ffi
native = ffi.load()
backend.start(native)
inside = int(native.ffi.cast("uintptr_t", backend.proc_address(native, "CPU", "ggml_backend_set_n_threads", "void *")))
for line in open("/proc/self/maps"):
    begin, end = (int(bound, 16) for bound in line.split()[0].split("-"))
    if begin <= inside < end:
        print(line.split()[-1], backend.kernels(native), sep=";")
"""
"""Prints the file of the CPU backend that ggml has chosen, and the instructions of llamabox's kernels in it."""

QUESTION = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 16,
    "temperature": 0,
}


def masked(variant: str) -> str:
    """The processor of a variant, as masked_processor.c reads it."""
    bits = [(bit, name in PROCESSORS[variant]) for name, places in FEATURES.items() for bit in places.split()]
    return " ".join(f"{bit}={int(on)}" for bit, on in bits)


def chosen(environment: dict[str, str]) -> tuple[str, str]:
    """The variant that ggml chooses, and the kernels in it."""
    command = [sys.executable, "-c", CHOSEN]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return "", (done.stderr.splitlines() or [f"exit status {done.returncode}"])[-1]
    file, kernels = done.stdout.strip().split(";")
    variant = Path(file).stem.removeprefix("libggml-cpu-")
    return variant, "no kernels" if kernels == "None" else f"kernels with {kernels}"


def answer(environment: dict[str, str], log: Path) -> str:
    """What a server on the demo model says of France's capital."""
    words = ("-m", str(ensure_demo_model(progress=False)), "--chat-template", "chatml", "-c", "1024")
    with ServerProcess(log, *words, env=environment) as server:
        message = server.ok("/v1/chat/completions", QUESTION)["choices"][0]["message"]
    return str(message["content"])


def main(prefix: str, *wanted: str) -> int:
    found = {path.stem.removeprefix("libggml-cpu-") for path in Path(prefix).glob("libggml-cpu-*.so")}
    assert found, f"{prefix} has no CPU variants: build it with --portable"
    assert found <= PROCESSORS.keys(), f"nothing is known here of {found - PROCESSORS.keys()}"
    flags = flags_of(Path("/proc/cpuinfo").read_text())
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(__file__).with_name("masked_processor.c"), Path(folder, "masked_processor.so")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"], check=True)
        for variant, features in PROCESSORS.items():
            if variant not in (wanted or found):
                continue
            environment = {"LLAMABOX_NATIVE": os.path.abspath(prefix), "LD_PRELOAD": str(library)}
            environment["MASKED_PROCESSOR"] = masked(variant)
            got, kernels = chosen(environment)
            said = "not computed: this processor lacks " + " ".join(n for n in features if FLAGS[n] not in flags)
            if got == variant and all(FLAGS[name] in flags for name in features):
                said = answer(environment, Path(folder, "log")).replace("\n", " ")
                failed += "Paris" not in said
            failed += got != variant
            print(f"{variant:14} loads {got or 'nothing'}; {kernels}; {said}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
