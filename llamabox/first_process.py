"""Process 1 of a container: it adopts every process whose parent has died, and nobody else can bury those.

A grammar is tried out by a process of a worker's. Where the worker dies, that process is adopted, and from its own end
on a zombie: a server that runs for months would collect thousands.
"""

from __future__ import annotations

import contextlib
import os
import signal

FORWARDED = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2})


def leave_burying_to_parent() -> None:
    """As process 1, go on in a child; the parent passes signals on, buries who ends, and ends as the child does.

    For a program that has no threads yet. Does nothing in any other process.
    """
    if os.getpid() != 1:
        return
    signals = FORWARDED | {signal.SIGCHLD}
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # what comes before `sigwait` waits for it
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)  # a terminal's Ctrl-C comes from the parent, and not twice
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
        return
    while True:
        number = signal.sigwait(signals)
        if number == signal.SIGCHLD:
            _bury(child)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)


def _bury(child: int) -> None:
    """All that have ended; with the child this process ends."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
        if pid == 0:
            return
