"""The processor: its instructions, beside those that the libraries use, and how much of it this process may have."""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Iterator

from llamabox.doctor.findings import Finding, ok, problem, warning
from llamabox.doctor.libraries import REBUILD, Libraries
from llamabox.doctor.system import System
from llamabox.machine import processors

AREA = "processor"
X86 = {
    "SSE3": "pni",
    "SSSE3": "ssse3",
    "AVX": "avx",
    "AVX2": "avx2",
    "F16C": "f16c",
    "FMA": "fma",
    "BMI2": "bmi2",
    "AVX_VNNI": "avx_vnni",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
}
ARM = {"NEON": "asimd", "DOTPROD": "asimddp", "MATMUL_INT8": "i8mm", "SVE": "sve", "SME": "sme"}
"""ggml's names of instruction sets, and the kernel's in /proc/cpuinfo."""

WORTH_IT = frozenset({"AVX2", "AVX512", "AVX512_VNNI", "DOTPROD", "MATMUL_INT8"})
"""Sets that make products of quantised weights a good deal faster."""

FEW = 2.0
"""Processors below which the server and its worker wait for each other."""


def examine(system: System, libraries: Libraries, n_threads: int) -> Iterator[Finding]:
    """`n_threads` is what decodes are to use."""
    cpuinfo = system.text("proc/cpuinfo")
    flags = flags_of(cpuinfo)
    yield from _fitting(flags, libraries)
    found = re.search(r"^(?:model name|Processor)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    name = found[1] if found else platform.processor() or platform.machine()
    names = [name for name, flag in known(flags).items() if flag in flags]
    quota = processors.cpu_quota(system.proc)
    n_allowed = len(processors.allowed())
    facts = {"name": name, "instructions": names, "n_allowed": n_allowed, "quota": quota}
    yield ok(
        AREA, f"{name}: {n_allowed} processors for this process; {' '.join(names) or 'instructions unknown'}", **facts
    )
    if quota is not None and quota < min(FEW, n_allowed):
        yield warning(
            AREA,
            f"the control group allows {quota:g} of {n_allowed} processors: server and worker wait for each other, and "
            "threads are stopped in mid-step when the quota is used up",
            f"allow {FEW:g} or more (docker --cpus, systemd CPUQuota=, Kubernetes limits.cpu)",
            quota=quota,
        )
    elif quota is not None:
        yield ok(AREA, f"the control group allows {quota:g} processors", quota=quota)
    most = n_allowed if quota is None else min(n_allowed, math.ceil(quota))
    if n_threads > most:
        yield warning(
            AREA,
            f"-t asks for {n_threads} threads, of which {most} can run at once: decoding threads wait for each other "
            "after each operation",
            f"leave -t out, or give {most} at most",
        )


def flags_of(cpuinfo: str) -> frozenset[str]:
    """The first processor's features; none where the system does not tell."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def known(flags: frozenset[str]) -> dict[str, str]:
    """ggml's names of what this kind of processor may have, with the kernel's."""
    return ARM if "asimd" in flags else X86


def used_by(system_info: str) -> frozenset[str]:
    """The sets that a build uses, by libllama's line about itself: `CPU : SSE3 = 1 | AVX2 = 1 | …`."""
    return frozenset(name for name, on in re.findall(r"([A-Z][A-Z0-9_]*) = (\d+)", system_info) if on != "0")


def _fitting(flags: frozenset[str], libraries: Libraries) -> Iterator[Finding]:
    if not flags:
        return
    names = known(flags)
    used = used_by(libraries.system_info) & names.keys()
    lacking = sorted(name for name in used if names[name] not in flags)
    missed = sorted(name for name in WORTH_IT & names.keys() - used if names[name] in flags)
    if lacking:
        yield problem(
            AREA,
            f"the libraries use {', '.join(lacking)}, which this processor lacks: they end with an illegal instruction",
            f"{REBUILD} on this machine, or with --portable for every processor",
            lacking=lacking,
        )
    elif libraries.illegal_instruction:
        yield problem(
            AREA,
            "the libraries use an instruction that this processor does not have: they were built on another one",
            f"{REBUILD} on this machine, or with --portable for every processor",
        )
    elif missed and used and not libraries.portable:
        yield warning(
            AREA,
            f"the libraries do not use {', '.join(missed)}, which this processor has: they were built on another one",
            f"{REBUILD} on this machine: decoding gets faster",
            missed=missed,
        )
    if names is X86 and "avx2" not in flags:
        yield warning(
            AREA,
            "this processor has no AVX2, or hides it: llamabox's kernels need it, and without them "
            "decoding takes several times as long",
            "in a virtual machine hand on the host's processor (QEMU -cpu host); else take another machine, or a GPU",
        )
        if libraries.images_need_avx2:
            yield warning(
                AREA,
                "the library that draws needs AVX2, since it was built with --portable",
                f"{REBUILD} on this machine, without --portable, for --images",
            )
