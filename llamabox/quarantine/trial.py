"""Asking questions whose answer may cost a process: the side that asks."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from llamabox.quarantine.doors import environment
from llamabox.quarantine.frames import ANSWER, QUESTION, receive

WALL_SECONDS = 30.0
"""A process is given up after this much silence beyond ten times its processor time. Its own limits come first, except
for a process that somebody stopped."""

MOST_ANSWER = 1 << 30
"""Bytes of an answer. Only a process that was taken over would send more."""

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a process. The kernel ends it beyond `cpu_seconds`; beyond `memory` it gets no more."""

    cpu_seconds: float  # of processor time for one question. Wall time would punish it for the load of its neighbours
    memory: int  # bytes of address space of the whole process
    start_seconds: float = 0.0  # further processor time for the first question, see Trial
    stack: int = 0  # bytes for the thread that answers; 0: the main thread answers, with the stack that it has
    niceness: int = 0  # above 0 it yields to the server and its workers where processors are short
    wall_seconds: float | None = None  # of silence; None: WALL_SECONDS + 10 times the processor time

    def silence(self, cpu_seconds: float) -> float:
        """Seconds without a word after which a process is given up."""
        return WALL_SECONDS + 10 * cpu_seconds if self.wall_seconds is None else self.wall_seconds


class Cause(StrEnum):
    """How a process came to its end."""

    TIME = "time"  # it used up its processor time
    SILENCE = "silence"  # it said nothing for too long, and was ended
    CRASH = "crash"  # anything else: the stack, a fault of native code, an exception, somebody's signal


@dataclass(frozen=True, slots=True)
class Death:
    """The process died of a question. The next question starts another process."""

    cause: Cause
    status: int  # exit status as subprocess counts it: negative for a signal
    seconds: float  # the processor time, or the silence, that it was allowed

    def __str__(self) -> str:
        match self.cause:
            case Cause.TIME:
                return f"it ran for more than {self.seconds:g} s"
            case Cause.SILENCE:
                return f"its process said nothing for {self.seconds:g} s"
        return f"its process ended with status {self.status}"


class Trial:
    """Owns a process that runs `module`, which calls `inside.serve`. It starts with the first question.

    The process is out of reach of a terminal's Ctrl-C, but has no session of its own: Linux shares processors among
    sessions first (sched_autogroup), and a session's share is spread over the processors that it uses. On each of them
    a child with a session to itself has a part that its niceness inside the server's would not give it, and where the
    server's session yields to others it has more than a decode.

    Not thread-safe, except for `abort`. Every call blocks. A process that died, whenever that was, is replaced when the
    next question comes: what it knew is lost, so `hello` makes a question that each new process is asked first.
    """

    def __init__(self, module: str, limits: Limits, hello: Callable[[], Bytes] | None = None) -> None:
        self.limits = limits
        self._module = module
        self._hello = hello
        self._greeting: bytearray | Death = bytearray()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The id of the process that runs now."""
        return None if self._process is None else self._process.pid

    def start(self) -> bytearray | Death:
        """Have a process. Returns its answer to `hello`, which is empty where there is no such question."""
        if self._process is not None and self._process.poll() is not None:
            self.close()  # somebody ended it while it slept: no question is to blame for that
        if self._process is None:
            self._launch()
            self._greeting = bytearray()
            if self._hello is not None:
                seconds = self.limits.cpu_seconds + self.limits.start_seconds
                self._greeting = self._exchange([self._hello()], seconds)
        return self._greeting

    def ask(self, *question: Bytes, cpu_seconds: float | None = None) -> bytearray | Death:
        """The answer to the question, which is the pieces one behind the other. `cpu_seconds`: other than usual."""
        greeting = self.start()
        if isinstance(greeting, Death):
            return greeting
        return self._exchange(question, self.limits.cpu_seconds if cpu_seconds is None else cpu_seconds)

    def abort(self) -> None:
        """End the process, so that the question that it is asked comes to a Death. From any thread."""
        if process := self._process:
            process.kill()

    def close(self) -> int | None:
        """End the process and collect it; its exit status. Idempotent: the next question starts another one."""
        process, self._process = self._process, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Closing the socket ends an idle process, and one that was ended by its limits is already gone.
            return process.wait(timeout=0.5)
        process.kill()
        return process.wait()

    def _launch(self) -> None:
        ours, theirs = socket.socketpair()
        limits = self.limits
        words = (theirs.fileno(), limits.memory, limits.stack, limits.niceness)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                process_group=0,
                env=environment(),
            )
        self._socket = ours

    def _exchange(self, question: Sequence[Bytes], cpu_seconds: float) -> bytearray | Death:
        assert self._socket is not None
        wall = self.limits.silence(cpu_seconds)
        self._socket.settimeout(wall)
        try:
            self._socket.sendall(QUESTION.pack(cpu_seconds, sum(len(piece) for piece in question)))
            for piece in question:
                self._socket.sendall(piece)
            answer = self._receive(self._socket)
        except TimeoutError:
            self.abort()
            return Death(Cause.SILENCE, self._status(), wall)
        except OSError:
            answer = None
        if answer is not None:
            return answer
        status = self._status()
        return Death(Cause.TIME if status == -signal.SIGPROF else Cause.CRASH, status, cpu_seconds)

    def _receive(self, peer: socket.socket) -> bytearray | None:
        head = receive(peer, ANSWER.size)
        if head is None:
            return None
        (length,) = ANSWER.unpack(head)
        if length > MOST_ANSWER:
            return None
        return receive(peer, length)

    def _status(self) -> int:
        status = self.close()
        assert status is not None, "there was a process"
        return status
