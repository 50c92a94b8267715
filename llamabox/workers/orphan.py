"""A worker must not outlive its server, however the server ends."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Has the kernel kill this process when the thread that started it ends. Linux only; elsewhere it does nothing.

    The end of file on the channel is what tells a worker on every platform that its server is gone. This is for the
    worker that cannot act on it, because native code does not return or holds the interpreter lock.
    Called by the worker itself rather than between fork and exec, where Python code can deadlock. A server that died
    before the call is no gap: the end of file is there already.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
