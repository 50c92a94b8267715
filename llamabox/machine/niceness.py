"""How far a thread stands back where processors are short."""

from __future__ import annotations

import os
import sys
import threading

MOST = 19
"""The lowest priority."""

BESIDE_DECODES = 5
"""By how much a thread that prepares something yields to those that decode, where both want a processor: it gets a
third of the time. Decoding threads wait for each other after each operation: one that has half a processor halves both.
"""


def be_nice_in_process(niceness: int) -> None:
    """Let the calling thread, and those that it starts, yield by `niceness` to the other threads of this process.

    Only Linux knows that; elsewhere nothing happens.
    """
    if sys.platform == "linux":  # elsewhere this is a whole process' priority
        thread = threading.get_native_id()
        before = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(before + niceness, MOST))
