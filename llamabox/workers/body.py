"""The life that the workers of all models share: beginning, signs of life, receiving thread, end."""

from __future__ import annotations

import logging
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from llamabox.errors import LlamaboxError, to_wire
from llamabox.log import entries as log
from llamabox.wire.common import LoadFailed, Shutdown, WorkerConfig
from llamabox.wire.frames import Message
from llamabox.wire.signs.pulse import Pulse
from llamabox.wire.worker_end import WorkerEnd
from llamabox.workers.escape import end_on_escape
from llamabox.workers.orphan import die_with_parent
from llamabox.workers.sigterm import watch_sigterm

logger = logging.getLogger(__name__)


Config = TypeVar("Config", bound=WorkerConfig)
ConfigRead = TypeVar("ConfigRead", bound=WorkerConfig, covariant=True)


class Configuring(Protocol[ConfigRead]):
    """The first message to a worker."""

    @property
    def config(self) -> ConfigRead: ...


@dataclass(frozen=True, slots=True)
class Body:
    """The belongings of a worker that has no model yet."""

    channel: WorkerEnd
    pulse: Pulse
    stopping: threading.Event
    """Set when Shutdown comes, and by whatever else ends this process in order."""


def run(fd: int, first: type[Configuring[Config]], serve: Callable[[Body, Config], None]) -> int:
    """Live the whole life of the worker whose socket is `fd`, with SIGTERM blocked. Returns the exit code.

    `first` is the type of the first message. `serve` loads the model, answers until Shutdown, and raises LlamaboxError
    where the model cannot be loaded: the server is told.
    """
    die_with_parent()
    end_on_escape()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # that is for the server, which stops us in order
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # nor may a terminal with `stty tostop` stop us where we log
    channel = WorkerEnd.from_fd(fd)
    stopping = threading.Event()
    watch_sigterm(channel, stopping)
    message = channel.receive()
    if message is None:
        return 0
    assert isinstance(message, first)
    config = message.config
    log.setup(config.verbosity, config.log_colors, as_json=config.log_json)
    pulse = Pulse(channel, config.hang_timeout)
    pulse.start()
    code = 0
    try:
        serve(Body(channel, pulse, stopping), config)
    except LlamaboxError as error:
        channel.send(LoadFailed(to_wire(error)))
        stopping.set()
        code = 1
    channel.close()
    return code


class ChannelReader(ABC):
    """A worker's receiving thread. Methods that start with an underscore run on it."""

    def __init__(self, body: Body) -> None:
        self._channel = body.channel
        self._pulse = body.pulse
        self._stopping = body.stopping
        self._thread = threading.Thread(target=self._run, name="channel reader", daemon=True)

    def start(self) -> None:
        """Begin to receive. Until a model is served, Shutdown and the end of the channel end the process."""
        self._thread.start()

    @abstractmethod
    def _take(self, message: Message) -> bool:
        """Act on a message, or return False for one that no server sends to this kind of worker."""

    @abstractmethod
    def _end(self) -> bool:
        """Have the worker end in order, or return False where that cannot be waited for."""

    def _run(self) -> None:
        while (message := self._channel.receive()) is not None:
            with self._pulse.work("reading a message"):
                self._act(message)
        if not self._stopping.is_set():  # else the process is about to end with a code of its own
            # The server process is gone: nobody is left to answer, and native code cannot be waited for.
            os._exit(0)

    def _act(self, message: Message) -> None:
        if isinstance(message, Shutdown):
            self._stopping.set()
            if not self._end():
                logging.shutdown()
                os._exit(0)
        elif not self._take(message):
            logger.error("this worker has no use for a %s message", type(message).__name__)
