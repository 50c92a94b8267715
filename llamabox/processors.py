"""How many threads a decode should use: physical cores that this process may run on."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from pathlib import Path

CPU_FOLDER = Path("/sys/devices/system/cpu")
CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def allowed() -> frozenset[int]:
    """The numbers of the processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def n_logical(cpus: Collection[int] = ()) -> int:
    """Processors this process may use, of `cpus` if any are named, and no more than its container's CPU quota."""
    n = len(allowed().intersection(cpus) if cpus else allowed())
    quota = _quota()
    return max(1, n if quota is None else min(n, quota))


def n_physical(cpus: Collection[int] = ()) -> int:
    """As `n_logical`, with the hardware threads of a core counted once: arithmetic gains nothing from the second."""
    if not hasattr(os, "sched_getaffinity"):
        return max(1, (os.cpu_count() or 2) // 2)
    cores = {_core(cpu) for cpu in (allowed().intersection(cpus) if cpus else allowed())}
    return max(1, min(len(cores), n_logical(cpus)))


def _core(cpu: int) -> str:
    """A name that the hardware threads of one core share; the processor's own where the system does not tell."""
    try:
        return (CPU_FOLDER / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return f"cpu{cpu}"


def _quota() -> int | None:
    try:
        quota, period = CGROUP_QUOTA.read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no such file, or "max"
        return None
