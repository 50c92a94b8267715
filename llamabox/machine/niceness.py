"""How far a process, or a thread, stands back where processors are short."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

MOST = 19
"""The lowest priority."""

BESIDE_DECODES = 5
"""By how much a thread that prepares something yields to those that decode, where both want a processor: it gets a
third of the time. Decoding threads wait for each other after each operation: one that has half a processor halves both.
"""


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


def be_nice_in_process(niceness: int) -> None:
    """Let the calling thread, and those that it starts, yield by `niceness` to the other threads of this process.

    Only Linux knows that; elsewhere nothing happens.
    """
    if sys.platform == "linux":  # elsewhere this is a whole process' priority
        thread = threading.get_native_id()
        before = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(before + niceness, MOST))
