"""How many threads a decode, or a build, should use: physical cores that this process may run on."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from pathlib import Path

from llamabox.machine import cgroups

CPU_FOLDER = Path("/sys/devices/system/cpu")


def allowed() -> frozenset[int]:
    """The numbers of the processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def n_logical(cpus: Collection[int] = ()) -> int:
    """Processors this process may use, of `cpus` if any are named, and no more than the CPU quotas of its groups."""
    n = len(allowed().intersection(cpus) if cpus else allowed())
    quota = cpu_quota()
    return max(1, n if quota is None else min(n, math.ceil(quota)))


def n_physical(cpus: Collection[int] = ()) -> int:
    """As `n_logical`, with the hardware threads of a core counted once, as arithmetic gains nothing from the second."""
    if not hasattr(os, "sched_getaffinity"):
        return max(1, (os.cpu_count() or 2) // 2)
    cores = {_core(cpu) for cpu in (allowed().intersection(cpus) if cpus else allowed())}
    return max(1, min(len(cores), n_logical(cpus)))


def cpu_quota(proc: Path = cgroups.SELF) -> float | None:
    """Processors' worth of time that the control groups allow, the least of all; None without a limit."""
    found = [quota for group in cgroups.groups("cpu", proc) if (quota := _quota(group)) is not None]
    return min(found, default=None)


def _quota(group: cgroups.Group) -> float | None:
    if group.version == 2:
        quota, _, period = group.text("cpu.max").partition(" ")
    else:
        quota, period = group.text("cpu.cfs_quota_us"), group.text("cpu.cfs_period_us")
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:  # no such file, "max" or -1
        return None
    return int(quota) / int(period)


def _core(cpu: int) -> str:
    """A name that the hardware threads of one core share; the processor's own where the system does not tell."""
    try:
        return (CPU_FOLDER / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return f"cpu{cpu}"
