from __future__ import annotations

import signal
import socket
import subprocess
import sys

from llamabox.wire.common import Loading, Shutdown, StopAsked
from llamabox.wire.worker_end import WorkerEnd
from llamabox.workers.sigterm import EXIT_TERMINATED

WORKER = """
import sys, threading
from llamabox.workers.sigterm import block_sigterm, watch_sigterm

block_sigterm()
import numpy  # whose threads would let the signal kill the process
from llamabox.wire.worker_end import WorkerEnd
from llamabox.wire.common import Loading

channel = WorkerEnd.from_fd(int(sys.argv[1]))
stopping = threading.Event()
watch_sigterm(channel, stopping)
channel.send(Loading(0.0))
channel.receive()
stopping.set()
channel.send(Loading(1.0))
threading.Event().wait()
"""


def test_sigterm_is_passed_on_until_the_worker_is_to_stop_and_ends_one_that_hangs_then() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-c", WORKER, str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=(theirs.fileno(),))
    try:
        with WorkerEnd(ours) as channel:
            assert channel.receive() == Loading(0.0)
            for _ in range(3):
                process.send_signal(signal.SIGTERM)
                assert channel.receive() == StopAsked()
            channel.send(Shutdown())
            assert channel.receive() == Loading(1.0)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == EXIT_TERMINATED
    finally:
        process.kill()
        process.wait()
