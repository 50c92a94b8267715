"""The process of sandbox.py, from the side that owns it."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from typing import Any

import orjson

from llamabox import quarantine
from llamabox.chat.rendering.link import receive

WALL_SECONDS = 30.0
"""The child is given up after this much silence beyond ten times its processor time; its own limits come first."""


class Child:
    """The process and its socket. Not thread-safe; starts with `start`, and again after a call that it died of."""

    def __init__(self, cpu_seconds: float, niceness: int) -> None:
        """`niceness`: how far it stands back behind the server and the worker where processors are short."""
        self._arguments = [str(cpu_seconds), str(niceness)]
        self.greeting: dict[str, Any] | None = None  # what it said about the template; None: not running
        self.process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    @property
    def is_running(self) -> bool:
        return self.process is not None

    def start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "llamabox.chat.rendering.sandbox", str(theirs.fileno()), *self._arguments]
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=quarantine.environment(),
            )
        self._socket = ours

    def ask(self, cpu_seconds: float, *frame: bytes | bytearray) -> dict[str, Any]:
        """One answer. A child that does not give it is ended; the answer is then an error."""
        assert self._socket is not None
        self._socket.settimeout(WALL_SECONDS + 10 * cpu_seconds)
        try:
            for piece in frame:
                self._socket.sendall(piece)
            reply = receive(self._socket)
        except OSError:
            reply = None
        if reply is None:
            return {"error": "fault", "message": _reason(self.stop(), cpu_seconds)}
        answer: dict[str, Any] = orjson.loads(reply)
        return answer

    def notice_death(self) -> None:
        """Forget a child that somebody ended while it slept: no call is to blame for that."""
        if self.process is not None and self.process.poll() is not None:
            self.stop()

    def abort(self) -> None:
        """Let the call that runs fail. From any thread."""
        if process := self.process:
            process.kill()

    def stop(self) -> int | None:
        """End it and collect it. Returns its exit status, as subprocess counts it."""
        process, self.process, self.greeting = self.process, None, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Closing the socket ends an idle child, and one that was ended by its limits is already gone.
            return process.wait(timeout=0.5)
        process.kill()
        return process.wait()


def _reason(status: int | None, cpu_seconds: float) -> str:
    if status == -signal.SIGPROF:
        return f"it ran for more than {cpu_seconds:g} s"
    return f"its process ended with status {status}"
