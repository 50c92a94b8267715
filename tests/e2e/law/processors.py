"""Who had the machine's processors: this process with all that it started, or others."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Use:
    """Seconds of processor time that all processes had since the machine started, and those of ours; at a time.

    Steps of ours may take longer by what others had: by the kernel's run queues a thread of the engine waits as long as
    it runs where two loops turn beside it on two processors.
    """

    at: float
    everybody: float
    ours: float

    @classmethod
    def now(cls) -> Use:
        return cls(time.monotonic(), _everybody(), _ours(os.getpid()))

    def others_since(self, before: Use) -> float:
        """The part of all processors' time since `before` that processes had which are not ours, from 0 to 1."""
        n_whole = (self.at - before.at) * len(os.sched_getaffinity(0))
        others = (self.everybody - before.everybody) - (self.ours - before.ours)
        return min(max(others / n_whole, 0.0), 1.0)


def _everybody() -> float:
    """On the processors that this process may use."""
    names = {f"cpu{i}" for i in os.sched_getaffinity(0)}
    ticks = 0
    for line in (PROC / "stat").read_text().splitlines():
        name, *fields = line.split()
        if name in names:
            user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def _ours(root: int) -> float:
    """Of a process, of those that come from it, and of those of these that have ended."""
    found: dict[int, tuple[int, int]] = {}  # by process: its parent and its ticks
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:  # it has ended
                continue
            found[int(folder.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    mine, n_before = {root}, 0
    while len(mine) > n_before:
        n_before = len(mine)
        mine |= {pid for pid, (parent, _) in found.items() if parent in mine}
    return sum(found[pid][1] for pid in mine if pid in found) / os.sysconf("SC_CLK_TCK")
