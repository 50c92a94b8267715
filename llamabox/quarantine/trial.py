"""Asking questions whose answer may cost a process: the side that asks."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from llamabox.quarantine.doors import environment
from llamabox.quarantine.frames import ANSWER, QUESTION, Bytes, receive, send

WALL_SECONDS = 30.0
"""A process is given up after this much silence beyond ten times its processor time. Its own limits come first, except
for a process that somebody stopped."""

MOST_PUT = 64 << 10
"""Bytes of a question that is put without waiting: a socket that nobody has written to has room for three times as
much."""

MOST_ANSWER = 1 << 30
"""Bytes of an answer. Only a process that was taken over would send more."""


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

    @property
    def is_ready(self) -> bool:
        """Whether a process waits for a question, and has answered its greeting."""
        return self._process is not None and self._process.poll() is None and not isinstance(self._greeting, Death)

    def put(self, question: Bytes, cpu_seconds: float) -> bool:
        """Put a question to a process that is ready, and do not wait: `answer` gives what it says.

        False for more than MOST_PUT bytes: nothing was sent.
        """
        assert self._socket is not None
        if len(question) > MOST_PUT:
            return False
        self._socket.setblocking(False)
        with contextlib.suppress(OSError):  # the process has just ended, as `answer` finds out
            send(self._socket, QUESTION.pack(cpu_seconds, len(question)), question)
        return True

    async def answer(self, cpu_seconds: float) -> bytearray | Death:
        """The answer to the question that was put. Blocks no event loop, whatever the process does."""
        assert self._socket is not None
        wall = self.limits.silence(cpu_seconds)
        try:
            async with asyncio.timeout(wall):
                answer = await self._answer_soon(self._socket)
        except TimeoutError:
            return await asyncio.to_thread(self._gave_up, wall)
        except OSError:
            answer = None
        return await asyncio.to_thread(self._died, cpu_seconds) if answer is None else answer

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
            send(self._socket, QUESTION.pack(cpu_seconds, sum(map(len, question))), *question)
            answer = self._receive(self._socket)
        except TimeoutError:
            return self._gave_up(wall)
        except OSError:
            answer = None
        return self._died(cpu_seconds) if answer is None else answer

    def _receive(self, peer: socket.socket) -> bytearray | None:
        head = receive(peer, ANSWER.size)
        if head is None or (length := _length(head)) > MOST_ANSWER:
            return None
        return receive(peer, length)

    async def _answer_soon(self, peer: socket.socket) -> bytearray | None:
        head = await _receive_soon(peer, ANSWER.size)
        if head is None or (length := _length(head)) > MOST_ANSWER:
            return None
        return await _receive_soon(peer, length)

    def _gave_up(self, wall: float) -> Death:
        self.abort()
        return Death(Cause.SILENCE, self._status(), wall)

    def _died(self, cpu_seconds: float) -> Death:
        status = self._status()
        return Death(Cause.TIME if status == -signal.SIGPROF else Cause.CRASH, status, cpu_seconds)

    def _status(self) -> int:
        status = self.close()
        assert status is not None, "there was a process"
        return status


def _length(head: bytearray) -> int:
    (length,) = ANSWER.unpack(head)
    return int(length)


async def _receive_soon(peer: socket.socket, n: int) -> bytearray | None:
    """As `receive`, of a socket that does not block. Here, as a child would import asyncio with it."""
    data = bytearray(n)
    view = memoryview(data)
    loop = asyncio.get_running_loop()
    while view:
        n_read = await loop.sock_recv_into(peer, view)
        if n_read == 0:
            return None
        view = view[n_read:]
    return data
