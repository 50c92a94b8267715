"""How much memory this process may still take."""

from __future__ import annotations

from pathlib import Path

from llamabox.machine import cgroups

MEMINFO = Path("/proc/meminfo")

FILES = ("active_file", "inactive_file")
"""Counters of cached files, which the kernel drops before it refuses memory."""


def available(meminfo: Path = MEMINFO, proc: Path = cgroups.SELF) -> int | None:
    """Bytes, within the machine's memory and the limits of all control groups; None where the system does not tell."""
    found = [left for group in cgroups.groups("memory", proc) if (left := _left(group)) is not None]
    kilobytes = cgroups.fields(meminfo).get("MemAvailable:")
    return min(found if kilobytes is None else [*found, kilobytes << 10], default=None)


def _left(group: cgroups.Group) -> int | None:
    """Bytes that a group may still take of its limit; None without one. Version 1 has a huge number then."""
    names, prefix = (
        (("memory.max", "memory.current"), "")
        if group.version == 2
        else (("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_")
    )
    limit, taken = map(group.number, names)
    if limit is None or taken is None:
        return None
    stat = group.fields("memory.stat")
    return max(0, limit - taken + sum(stat.get(prefix + name, 0) for name in FILES))
