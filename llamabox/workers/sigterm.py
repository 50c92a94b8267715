"""SIGTERM in a worker: the server decides when its workers end, so it is told, and the worker goes on.

systemd sends SIGTERM to every process of a unit, and people send it to whichever process they find first. A worker
that died of it would cut off the requests which the server lets end in order.

The signal is waited for by a thread, not caught by a handler: a handler runs on the main thread between two bytecodes,
where that thread may hold the lock which sending needs, and not at all during a native call.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading

from llamabox.wire.common import StopAsked
from llamabox.wire.worker_end import WorkerEnd

EXIT_TERMINATED = 128 + signal.SIGTERM
"""The code with which a shell reports a process that SIGTERM ended."""


def leave_group() -> None:
    """Be a process group of its own: a terminal's Ctrl-C and hang-up are for the server, which decides when we stop."""
    with contextlib.suppress(PermissionError):  # the leader of a session has one
        os.setpgid(0, 0)


def block_sigterm() -> None:
    """Block SIGTERM in this thread and in all that it will start. A thread left out would let the process die of it.

    A SIGTERM from here on waits for `watch_sigterm`.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def watch_sigterm(channel: WorkerEnd, stopping: threading.Event) -> None:
    """Starts the thread that turns each SIGTERM into a StopAsked.

    Once `stopping` is set, SIGTERM is the server's word that the worker has been too slow: it ends at once.
    """
    threading.Thread(target=_watch, args=(channel, stopping), name="SIGTERM", daemon=True).start()


def _watch(channel: WorkerEnd, stopping: threading.Event) -> None:
    while True:
        signal.sigwait({signal.SIGTERM})
        if stopping.is_set():
            os._exit(EXIT_TERMINATED)
        channel.send(StopAsked())
