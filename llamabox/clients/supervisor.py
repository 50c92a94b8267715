"""Keeps one worker process alive: spawn, watch, restart with back-off, stop.

Knows processes and delays; of messages only Shutdown.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from llamabox import background
from llamabox.clients.huge_pages import huge_pages
from llamabox.log.masking import without_secrets
from llamabox.machine.exits import describe_exit
from llamabox.wire.common import Shutdown
from llamabox.wire.server_end import ServerEnd

logger = logging.getLogger(__name__)

TERM_GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL."""

EXIT_GRACE = 2.0
"""Seconds a worker may live on after it closed its socket, or after a SIGKILL."""


@dataclass(slots=True)
class Backoff:
    """When to start again, in seconds: doubling from `first` to `most`; `first` again after `healthy` of service."""

    first: float = 0.1
    most: float = 10.0
    healthy: float = 30.0
    _next: float = field(default=0.0, init=False)

    def after(self, served: float) -> float:
        """Seconds to wait after a life that gave `served` seconds of service."""
        delay = self.first if served >= self.healthy or not self._next else self._next
        self._next = min(2 * delay, self.most)
        return delay


class WorkerProcess:
    """One spawned process and the channel to it. Owned by the event loop that spawned it."""

    def __init__(self, process: asyncio.subprocess.Process, channel: ServerEnd) -> None:
        self._process = process
        self.channel = channel

    @classmethod
    async def spawn(cls, module: str, env: Mapping[str, str]) -> WorkerProcess:
        """Runs `python -m module FD`, FD being its end of the channel. Raises OSError if it cannot.

        It has no session of its own: Linux shares processors among sessions first (sched_autogroup), and beside a
        worker that wants them all the server, which wants little, was at times not let run for half a second.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", module, str(theirs.fileno())),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env={**without_secrets(os.environ), **huge_pages(os.environ), **env},
                )
        except BaseException:
            ours.close()
            raise
        return cls(process, await ServerEnd.open(ours))

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Does nothing to a process that has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def reap(self) -> int:
        """Closes the channel, waits for the process or puts an end to it, and returns its code (negative: a signal)."""
        self.channel.close()
        try:
            async with asyncio.timeout(EXIT_GRACE):
                return await self._process.wait()
        except TimeoutError:
            logger.warning("worker %d lives on without its channel: killing it", self.pid)
        finally:
            if self._process.returncode is None:
                self.signal(signal.SIGKILL)
        return await self._process.wait()


class Supervisor:
    """Runs lives of one worker, one after the other. Belongs to one event loop.

    `session(channel)` talks to a worker until the channel ends, and returns for how many seconds it was of service.
    `ended(code, how)` is then told how the process ended, and says whether there is to be another. `code` is its exit
    code, negative for a signal, None where it could not be started; `how` says the same in words.
    `may_start()` is awaited before each life: it returns when a worker has what it needs, False where there is to be
    none. It is cancelled by a stop.
    """

    def __init__(
        self,
        module: str,
        session: Callable[[ServerEnd], Awaitable[float]],
        ended: Callable[[int | None, str], bool],
        *,
        env: Mapping[str, str],
        backoff: Backoff,
        may_start: Callable[[], Coroutine[Any, Any, bool]] | None = None,
    ) -> None:
        self.n_restarts = 0
        self._module = module
        self._session = session
        self._ended = ended
        self._env = env
        self._backoff = backoff
        self._may_start = may_start
        self._worker: WorkerProcess | None = None
        self._is_replacing = False  # the worker's end is planned
        self._stopping = asyncio.Event()
        self._lives: asyncio.Task[None] | None = None
        self._stopper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the worker that runs now, or None."""
        return None if self._worker is None else self._worker.pid

    @property
    def has_started(self) -> bool:
        return self._lives is not None

    def start(self) -> None:
        """Returns at once; the first process is spawned by a task."""
        assert self._lives is None, "a supervisor starts once"
        self._lives = background.spawn(self._run(), f"the supervisor of {self._module}")

    def restart(self) -> None:
        """Kill the worker that runs and start another without delay. Neither a death nor counted as a restart."""
        assert self._worker is not None, "there is no worker to replace"
        self._is_replacing = True
        self._worker.signal(signal.SIGKILL)

    def kill(self) -> None:
        """Kill the worker that runs, if one does: a death."""
        if self._worker is not None:
            self._worker.signal(signal.SIGKILL)

    async def stop(self, grace: float) -> None:
        """Shutdown message; after `grace` seconds SIGTERM, a second later SIGKILL. Returns when the process is reaped.

        Idempotent; whoever calls it again waits for the same end. A worker that is to be started is not.
        """
        if self._stopper is None:
            self._stopper = asyncio.create_task(self._stop(grace))
        await asyncio.shield(self._stopper)

    async def _stop(self, grace: float) -> None:
        self._stopping.set()
        if self._lives is None:
            return
        if self._worker is not None:
            self._worker.channel.send(Shutdown())
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, TERM_GRACE)):
            done, _ = await asyncio.wait({self._lives}, timeout=patience)
            if not done and self._worker is not None:
                logger.warning("worker %d has not stopped within %g s: %s", self._worker.pid, patience, number.name)
                self._worker.signal(number)
        done, _ = await asyncio.wait({self._lives}, timeout=EXIT_GRACE)
        if not done:  # the kernel does not let go of it, as happens with a driver that hangs
            logger.error("worker %s does not end, not even by SIGKILL", self.pid)
            self._lives.cancel()

    async def _run(self) -> None:
        """Run all lives. An exception that nobody expected, in a life or before it, counts as a death."""
        while not self._stopping.is_set():
            try:
                await self._run_on()
                return
            except Exception as error:
                how = f"cannot be kept running: {error!r}"
                logger.exception("the worker %s %s", self._module, how)
                if not self._ended(None, how):
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._backoff.after(0.0)):
                        await self._stopping.wait()
                self.n_restarts += 1

    async def _run_on(self) -> None:
        clock = asyncio.get_running_loop().time
        if not await self._allowed():
            return
        while True:
            served, code, how = await self._live()
            if not self._ended(code, how) or self._stopping.is_set():
                return
            if self._is_replacing:
                self._is_replacing = False
                continue
            delay = self._backoff.after(served)
            logger.warning("next start of %s in %g s", self._module, delay)
            due = clock() + delay
            if not await self._allowed():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - clock())):  # what was waited for counts
                    await self._stopping.wait()
                return
            self.n_restarts += 1

    async def _allowed(self) -> bool:
        """The answer of `may_start`, or False once the supervisor stops."""
        if self._may_start is None:
            return True
        asking = asyncio.create_task(self._may_start(), name=f"start of {self._module}")
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((asking, stopping), return_when=asyncio.FIRST_COMPLETED)
            return asking.done() and asking.result()
        finally:
            asking.cancel()
            stopping.cancel()

    async def _live(self) -> tuple[float, int | None, str]:
        """Run one life. Returns its seconds of service, its exit code, and its end in words, as `ended` gets them."""
        try:
            worker = await WorkerProcess.spawn(self._module, self._env)
        except OSError as exc:
            how = f"could not be started: {exc}"
            logger.error("the worker %s %s", self._module, how)
            return 0.0, None, how
        logger.info("worker %d runs %s", worker.pid, self._module)
        self._worker = worker
        try:
            if self._stopping.is_set():  # nothing is loaded yet, so nothing is lost
                worker.signal(signal.SIGKILL)
            served = await self._session(worker.channel)
            code = await worker.reap()
        finally:
            self._worker = None
            worker.channel.close()
            worker.signal(signal.SIGKILL)  # only a cancelled or failed life comes here with a process
        how = describe_exit(code)
        level = logging.INFO if self._stopping.is_set() or self._is_replacing else logging.ERROR
        logger.log(level, "worker %d %s", worker.pid, how)
        return served, code, how
