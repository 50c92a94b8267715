"""What this process may take: memory, open files, threads; and what a model needs of the memory."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from typing import Any

from llamabox.doctor.findings import Finding, ok, problem, warning
from llamabox.doctor.system import System
from llamabox.machine import cgroups, free_memory

MIB = 1 << 20
PROCESSES = 160 * MIB
"""Bytes for the server, its worker and its children beside the model, its cells and what clients send. 33 and 37 MiB
were measured for the first two."""

ADDRESSES = 1536 * MIB
"""Of the addresses that a worker takes beside the model: a GiB was measured, most of it never touched."""

N_THREADS = 64
"""Processes and threads below which a server with its children does not come up for sure."""

SPARE_FILES = 256
"""Descriptors below which there is little room for connections."""

RAISE_MEMORY = "raise the limit (docker --memory, systemd MemoryMax=, Kubernetes limits.memory)"


def examine_memory(system: System, n_weights: int, gpus: bool, locked: bool) -> Iterator[Finding]:
    """`n_weights` are the bytes of all model files; `locked`: they are to be locked in memory (--mlock)."""
    available = free_memory.available(system.meminfo, system.proc)
    total = total_memory(system)
    limit = least_limit(system)
    facts = {"total": total, "available": available, "limit": limit, "weights": n_weights}
    need = PROCESSES + (0 if gpus else n_weights)
    what = f"llamabox takes some {PROCESSES // MIB} MiB beside the model"
    if n_weights and not gpus:
        what = f"the model takes {n_weights // MIB} MiB, llamabox {PROCESSES // MIB} MiB beside it and its context"
    most = min((bound for bound in (total, limit) if bound is not None), default=None)
    if most is not None and most < need:
        where = f"a limit allows {most // MIB} MiB" if most == limit else f"this machine has {most // MIB} MiB"
        advice = (f"{RAISE_MEMORY}, or " if most == limit else "") + "take a smaller model or quantisation"
        yield problem("memory", f"{where}, and {what}: the kernel ends processes that take more", advice, **facts)
    elif available is not None and available < need:
        advice = "end something, or take a smaller model or quantisation"
        yield warning("memory", f"{available // MIB} MiB are available now, and {what}", advice, **facts)
    elif available is not None:
        of = "" if most is None else f" of {most // MIB} MiB"
        limited = "" if limit is None or most != limit else ", which a limit allows"
        yield ok("memory", f"{available // MIB} MiB available{of}{limited}", **facts)
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY and soft < ADDRESSES + n_weights:
        text = (
            f"ulimit -v allows {soft // MIB} MiB of addresses, and a worker takes {ADDRESSES // MIB} MiB and its model"
        )
        yield problem("memory", text, "leave it out (ulimit -v unlimited), and limit memory by a control group")
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if locked and soft != resource.RLIM_INFINITY and soft < n_weights:
        text = f"--mlock: {soft // MIB} MiB may be locked, and the model takes {n_weights // MIB} MiB"
        yield warning("memory", text, "raise the limit (docker --ulimit memlock=-1, systemd LimitMEMLOCK=infinity)")


def examine_shared_memory(system: System) -> Finding:
    """Told for those who look for it: nothing of llamabox is kept there."""
    there = bool(system.there("dev/shm"))
    text = "/dev/shm is here" if there else "/dev/shm is not here"
    return ok("shared memory", f"{text}; llamabox needs none", there=there)


def examine_files(max_connections: int, limits: tuple[int, int] | None = None) -> Finding:
    """`limits` are the soft and the hard limit of open files; None: this process' own."""
    _, hard = limits or resource.getrlimit(resource.RLIMIT_NOFILE)  # the server raises the soft one to it
    if hard == resource.RLIM_INFINITY or hard >= max_connections + SPARE_FILES:
        shown = "any number of" if hard == resource.RLIM_INFINITY else str(hard)
        return ok("files", f"{shown} files and connections may be open", limit=None if shown != str(hard) else hard)
    text = f"{hard} files and connections may be open, too few for {max_connections} connections"
    advice = "raise the limit (docker --ulimit nofile=65536, systemd LimitNOFILE=65536, ulimit -Hn)"
    found = problem if hard < SPARE_FILES else warning
    return found("files", f"{text}: further clients wait", advice, limit=hard)


def examine_threads(system: System) -> Iterator[Finding]:
    counts = [count for group in cgroups.groups("pids", system.proc) if (count := group.number("pids.max")) is not None]
    if counts and (most := min(counts)) < N_THREADS:
        yield problem(
            "threads",
            f"the control group allows {most} processes and threads: a server and its children do not come up",
            f"allow {N_THREADS} or more (docker --pids-limit, systemd TasksMax=)",
            limit=most,
        )


def total_memory(system: System) -> int | None:
    """Bytes of the machine; None where it does not tell."""
    kilobytes = cgroups.fields(system.meminfo).get("MemTotal:")
    return None if kilobytes is None else kilobytes << 10


def least_limit(system: System) -> int | None:
    """Bytes that the control groups allow; None where that is all of the machine's."""
    names = ("memory.max", "memory.limit_in_bytes")
    found = [
        limit
        for group in cgroups.groups("memory", system.proc)
        if (limit := group.number(names[group.version == 1])) is not None
    ]
    least, total = min(found, default=None), total_memory(system)
    return None if least is None or (total is not None and least >= total) else least


def n_weights(steps: Mapping[str, Mapping[str, Any]]) -> int:
    """Bytes of all the model files that a child measured."""
    return sum(int(found.get("n_bytes", 0)) for step, found in steps.items() if step.startswith("file "))
