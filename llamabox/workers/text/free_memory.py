"""How much memory this process may still take."""

from __future__ import annotations

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def available() -> int | None:
    """Bytes, within the machine's memory and the container's limit; None where the system does not tell."""
    found = [n_bytes for n_bytes in (_of_machine(), _of_container()) if n_bytes is not None]
    return min(found, default=None)


def _of_machine() -> int | None:
    kilobytes = _fields(MEMINFO).get("MemAvailable:")
    return None if kilobytes is None else kilobytes << 10


def _of_container() -> int | None:
    """What is left of its limit (cgroup v2). Files that are cached for it are dropped before anything is refused."""
    try:
        limit, taken = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no such file, or "max"
        return None
    stat = _fields(CGROUP / "memory.stat")
    return max(0, limit - taken + stat.get("active_file", 0) + stat.get("inactive_file", 0))


def _fields(path: Path) -> dict[str, int]:
    """The numbers of a file of lines with a name and a number, by their names; empty where there is no such file."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}
