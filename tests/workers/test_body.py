"""A worker's life around its model: the first message, a load that fails, and the ends that wait for nobody."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from llamabox.errors import ModelLoadError, to_wire
from llamabox.wire.common import LoadFailed, Loading, Shutdown
from llamabox.wire.text import Abort, Configure
from llamabox.wire.text_config import TextConfig
from llamabox.wire.worker_end import WorkerEnd

WORKER = """
import sys, threading
from llamabox.workers.sigterm import block_sigterm

block_sigterm()
from llamabox.errors import ModelLoadError
from llamabox.wire.common import Loading
from llamabox.wire.text import Abort, Configure
from llamabox.workers.body import ChannelReader, run

class Reader(ChannelReader):
    def _take(self, message):
        if isinstance(message, Abort) and message.request_id == "known":
            self._channel.send(Loading(0.5))
            return True
        return False

    def _end(self):
        return False

def serve(body, config):
    if config.model == "bad":
        raise ModelLoadError("bad is no model")
    Reader(body).start()
    body.channel.send(Loading(0.0))
    threading.Event().wait()

sys.exit(run(int(sys.argv[1]), Configure, serve))
"""


@contextmanager
def worker() -> Iterator[tuple[WorkerEnd, subprocess.Popen[str]]]:
    """The server's end of a worker's channel, and the worker, which must have ended with the block."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-c", WORKER, str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE, text=True)
    try:
        with WorkerEnd(ours) as channel:
            yield channel, process
    finally:
        process.kill()
        process.communicate()


def configure(model: str) -> Configure:
    return Configure(TextConfig(model=model, hang_timeout=0.0))


def test_a_load_that_fails_is_told_and_ends_the_worker() -> None:
    with worker() as (channel, process):
        channel.send(configure("bad"))
        assert channel.receive() == LoadFailed(to_wire(ModelLoadError("bad is no model")))
        assert channel.receive() is None
        assert process.wait(30) == 1


def test_a_server_that_goes_before_it_said_anything_ends_the_worker_in_order() -> None:
    with worker() as (channel, process):
        channel.close()
        assert process.wait(30) == 0


def test_the_end_of_the_channel_ends_a_worker_that_is_busy() -> None:
    with worker() as (channel, process):
        channel.send(configure("good"))
        assert channel.receive() == Loading(0.0)
        channel.close()
        assert process.wait(30) == 0


def test_a_shutdown_that_cannot_be_waited_for_ends_the_worker_at_once() -> None:
    with worker() as (channel, process):
        channel.send(configure("good"))
        assert channel.receive() == Loading(0.0)
        channel.send(Shutdown())
        assert process.wait(30) == 0


def test_a_message_of_no_use_is_logged_and_the_next_is_taken() -> None:
    with worker() as (channel, process):
        channel.send(configure("good"))
        assert channel.receive() == Loading(0.0)
        channel.send(Abort("unknown"))
        channel.send(Abort("known"))
        assert channel.receive() == Loading(0.5)
        channel.close()
        assert "this worker has no use for a Abort message" in process.communicate(timeout=30)[1]
