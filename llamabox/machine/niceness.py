"""How far a process stands back where processors are short."""

from __future__ import annotations

import contextlib
import os


def be_nice(niceness: int) -> None:
    """Let this process, which must lead a session of its own, yield to others by `niceness`, 0 to 19.

    Linux shares processors among sessions first (sched_autogroup), and a process' niceness counts inside its session
    alone: so the session gets it too. In a cgroup of its own there are no such groups, and the process' own counts.
    """
    if not niceness:
        return
    os.nice(niceness)
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as file:  # a file of kernels with such groups
        file.write(str(niceness))
