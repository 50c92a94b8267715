"""The part that the clients of all kinds of worker share: states, sessions, deaths and restarts."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Generic, TypeVar

from llamabox import background
from llamabox.clients.state import WorkerState, unavailable
from llamabox.clients.supervisor import Backoff, Supervisor
from llamabox.errors import ChannelBroken, LlamaboxError, NativeError, Unavailable
from llamabox.log import entries as log
from llamabox.wire.common import Beat, LoadFailed, Loading, StopAsked, WorkerConfig, read_error
from llamabox.wire.frames import Message
from llamabox.wire.server_end import ServerEnd
from llamabox.wire.signs.vigil import Vigil, is_traced

logger = logging.getLogger(__name__)

MAX_UNSENT = 256 << 20
"""Bytes that may wait for the worker to read them before requests are refused."""

NO_ENV: Mapping[str, str] = MappingProxyType({})

Info = TypeVar("Info")
"""A kind of worker's description of the model it loaded."""

Self = TypeVar("Self", bound="WorkerClient[Any, Any]")


Config = TypeVar("Config", bound=WorkerConfig)


class WorkerClient(ABC, Generic[Config, Info]):
    """Run a worker and speak to it. Belongs to the server's event loop; `stop` must be awaited before that ends.

    As a context manager it starts on entry and stops on exit. Whoever derives from it says in the methods at the end
    what the worker is for.
    """

    def __init__(
        self, kind: str, config: Config, *, module: str, env: Mapping[str, str], backoff: Backoff | None
    ) -> None:
        """`kind` is the worker's in messages. `env` is added to this process' own environment."""
        self.config = config
        self.state = WorkerState.LOADING
        self.progress = 0.0
        self.info: Info | None = None
        self.stop_asked = asyncio.Event()  # the worker got a SIGTERM, which is meant for the whole server
        self._kind = kind
        self._load_error: LlamaboxError | None = None  # of the load that was tried last
        self._changed = asyncio.Event()  # one per change
        self._supervisor = Supervisor(
            module,
            self._session,
            self._ended,
            env={**_traces(config.verbosity), **env},
            backoff=backoff or Backoff(),
            may_start=self._may_start,
        )
        self._channel: ServerEnd | None = None  # None also for a worker that is given up
        self._is_planned = False  # the restart that is under way
        self._hang_timeout = config.hang_timeout
        self._vigil: Vigil | None = None  # over the worker that runs
        self._ready_since: float | None = None

    @property
    def n_restarts(self) -> int:
        """Restarts after deaths. Planned restarts are not counted."""
        return self._supervisor.n_restarts

    @property
    def trouble(self) -> str:
        """A sentence on what a worker that is not READY waits for. Empty where it waits for its model."""
        return ""

    @property
    def pid(self) -> int | None:
        """Process id of the worker that runs now, or None."""
        return self._supervisor.pid

    @property
    def _what(self) -> str:
        """The model that a worker loads, in words for messages."""
        return self.config.model

    async def start(self) -> None:
        """Spawns the worker and returns at once; it loads in the background. Further calls change nothing."""
        if not self._supervisor.has_started:
            self._supervisor.start()

    async def wait_ready(self) -> Info:
        """Waits for READY, through restarts. Raises the error of a first load that fails, Unavailable after a stop."""
        while self.state is not WorkerState.READY or self.info is None:
            if self.state is WorkerState.FAILED and self._load_error is not None:
                raise self._load_error
            if self.state is WorkerState.STOPPED:
                raise self._refusal()
            await self.wait_change()
        return self.info

    async def wait_change(self) -> WorkerState:
        """Waits for the next change of `state` or `progress`, and returns what the state is by then."""
        await self._changed.wait()
        return self.state

    async def stop(self, grace: float) -> None:
        """Ends what runs with Unavailable, then the worker, with `grace` seconds before force. Idempotent."""
        self._stopped()
        await self._supervisor.stop(grace)

    async def __aenter__(self: Self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.stop(grace=5.0)

    def _open_channel(self) -> ServerEnd:
        """Raises Unavailable when the worker takes no requests now."""
        if self.state is not WorkerState.READY or self._channel is None:
            raise self._refusal()
        if self._channel.n_unsent > MAX_UNSENT:
            raise Unavailable(f"The {self._kind} worker is not keeping up with its requests: try again")
        return self._channel

    def _refusal(self) -> Unavailable:
        restarting = f"The {self._kind} worker ended unexpectedly and is being restarted: try again"
        return unavailable(self.state, self.trouble, restarting)

    def _restart(self) -> None:
        """Ends a worker that is READY, at once, and has another started without delay. What it has in flight fails."""
        assert self._channel is not None
        self._is_planned = True
        self._enter(WorkerState.RESTARTING)
        channel, self._channel = self._channel, None
        channel.close()
        self._supervisor.restart()

    async def _session(self, channel: ServerEnd) -> float:
        """One worker's life, as the supervisor asks for it: returns the seconds for which it was ready."""
        self._channel = channel
        self._ready_since = None
        self._load_error = None
        self.progress = 0.0
        channel.send(self._configure())
        watching = background.spawn(self._watch(channel), f"the vigil over the {self._kind} worker")
        try:
            await channel.serve(self._dispatch)
        except ChannelBroken as exc:
            logger.error("the %s worker is taken for dead: %s", self._kind, exc)
        except Exception:  # nobody else would see it, and a worker that nobody reads must not look alive
            logger.exception("a message of the %s worker could not be handled: taking it for dead", self._kind)
        finally:
            watching.cancel()
            self._end_session()
        return 0.0 if self._ready_since is None else time.monotonic() - self._ready_since

    async def _watch(self, channel: ServerEnd) -> None:
        """A worker that is silent for too long is killed; all else is as with any death."""
        if not self._hang_timeout:
            return
        self._vigil = Vigil(self._hang_timeout)
        await self._vigil.wait(self._is_traced)
        sentence = f"the {self._kind} worker gave no sign of life for {self._vigil.limit:.3g} s"
        logger.error("%s (--hang-timeout): killing it", sentence)
        if self.info is None:
            self._load_error = NativeError(f"{sentence} while it loaded {self._what}")
        self._supervisor.kill()
        channel.close()

    def _is_traced(self) -> bool:
        if not is_traced(self.pid):
            return False
        logger.log(log.MORE, "the %s worker is silent, and left alone because a debugger holds it", self._kind)
        return True

    def _dispatch(self, message: Message) -> None:
        if self._channel is None:  # what a worker that is given up had already sent
            return
        if self._vigil is not None:
            self._vigil.heard()
        match message:
            case Beat():
                pass
            case Loading():
                self.progress = message.progress
                self._notify()
            case LoadFailed():
                self._load_error = read_error(message.error)
                if self.info is not None:  # else wait_ready raises it
                    logger.error("the %s worker could not load: %s", self._kind, self._load_error)
            case StopAsked():
                self.stop_asked.set()
            case _:
                self._handle(message)

    def _is_ready(self, info: Info) -> None:
        """The worker has loaded its model: requests are taken from now on."""
        self.progress = 1.0
        self.info = info
        self._ready_since = time.monotonic()
        self._is_planned = False
        self._enter(WorkerState.READY)

    def _end_session(self) -> None:
        """The channel has ended. The state changes before anything else is awaited, because /health reads it."""
        self._channel = None
        died = self.state is WorkerState.READY
        if died:
            self._enter(WorkerState.RESTARTING)
        self._lost(f"The {self._kind} worker ended while it served this request: try again", died=died)

    def _ended(self, code: int | None, how: str) -> bool:
        """The process is reaped. Return whether another is to be started."""
        if self.state is WorkerState.STOPPED:
            return False
        if code == -signal.SIGTERM:  # it came before the worker could send StopAsked, and means the same
            self._stopped()
            self.stop_asked.set()
            return False
        if self.info is not None:  # a load succeeded once, so another may
            return True
        error = self._load_error or NativeError(f"the {self._kind} worker {how} while it loaded {self._what}")
        self._cannot_load(error)
        return False

    def _cannot_load(self, error: LlamaboxError) -> None:
        """The first load failed: wait_ready raises why."""
        self._load_error = error
        self._enter(WorkerState.FAILED)

    def _stopped(self) -> None:
        self._enter(WorkerState.STOPPED)
        self._fail_all(self._refusal().message)

    def _enter(self, state: WorkerState) -> None:
        if state is not self.state and self.state is not WorkerState.STOPPED:
            self.state = state
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _may_start(self) -> bool:
        """Return True when the next worker may be started, False after `_cannot_load`. Awaited before each start."""
        return True

    @abstractmethod
    def _configure(self) -> Message:
        """The first message to a new worker."""

    @abstractmethod
    def _handle(self, message: Message) -> None:
        """Act on a message of this kind of worker, Ready among them. Raises ChannelBroken for any other."""

    @abstractmethod
    def _lost(self, sentence: str, *, died: bool) -> None:
        """The worker is gone: fail its requests. `died` is true where it was READY and its end was not planned."""

    @abstractmethod
    def _fail_all(self, sentence: str) -> None:
        """No other worker will come: fail all requests."""


def _traces(verbosity: int) -> Mapping[str, str]:
    """Keep ggml from starting a debugger where it aborts, unless the log shows everything.

    A debugger delays the news of the death by seconds and writes pages between the lines of the log.
    """
    return {} if log.level(verbosity) <= logging.DEBUG else {"GGML_NO_BACKTRACE": "1"}
