"""An unexpected exception ends a worker: half a worker would look alive and answer nobody. It is started again."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import ParamSpec, TypeVar

from llamabox.errors import LlamaboxError
from llamabox.wire.signs.pulse import Pulse

logger = logging.getLogger(__name__)

EXIT_ESCAPED = 70
"""sysexits.h: an error in the software."""

P = ParamSpec("P")
T = TypeVar("T")


def end_on_escape() -> None:
    """From now on an exception that leaves any thread ends the process, with its trace in the log."""
    sys.excepthook = _end
    threading.excepthook = lambda args: _end(args.exc_type, args.exc_value, args.exc_traceback)


def _end(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    name = threading.current_thread().name
    logger.critical("thread %s ends this worker", name, exc_info=(kind, error or kind(), trace))
    logging.shutdown()
    os._exit(EXIT_ESCAPED)  # not sys.exit: native threads, or those of a pool, would hold up the end


class WatchedPool(ThreadPoolExecutor):
    """A pool whose work is announced to the pulse. A LlamaboxError is the future's, others end the process."""

    def __init__(
        self,
        n_threads: int,
        name: str,
        pulse: Pulse,
        *,
        seconds: float = 0.0,
        computes: bool = False,
        initializer: Callable[[], None] | None = None,
    ) -> None:
        """`seconds` and `computes` of its work are as Pulse.work's. Each thread begins with the `initializer`."""
        super().__init__(n_threads, thread_name_prefix=name, initializer=initializer)
        self._name = name
        self._pulse = pulse
        self._seconds = seconds
        self._computes = computes

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return super().submit(self._do, partial(work, *args, **kwargs))

    def _do(self, work: Callable[[], T]) -> T:
        try:
            with self._pulse.work(self._name, seconds=self._seconds, computes=self._computes):
                return work()
        except LlamaboxError:
            raise
        except BaseException as error:
            _end(type(error), error, error.__traceback__)
            raise
