"""The native log in Python's logging: one daemon thread takes lines out of the helper's ring.

ggml's threads write into the ring and never meet Python. The thread here waits inside C, so an idle log costs nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from llamabox.bindings.ffi import Native

LINE_SIZE = 8192
WAIT_MS, HEAR_MS = 1000, 20
NEVER = 99
"""Above every GGML_LOG_LEVEL."""


class LogPump:
    """Carries the lines of ggml, libllama and libmtmd to a logger. Owns its thread; one at a time in a process.

    The logger's level at this moment decides what is kept at all: filtering in C, libllama's debug lines cost nothing.
    `close()` hands on what is still in the ring and joins the thread; it is idempotent.
    """

    def __init__(self, native: Native, logger: logging.Logger | None = None) -> None:
        self._native = native
        self._logger = logger or logging.getLogger("llamabox.native")
        self._levels = {
            native.lib.LB_LOG_DEBUG: logging.DEBUG,
            native.lib.LB_LOG_INFO: logging.DEBUG,  # a page at every load
            native.lib.LB_LOG_WARN: logging.WARNING,
            native.lib.LB_LOG_ERROR: logging.ERROR,
        }
        self._hear: Callable[[str], None] | None = None
        self._all_heard = threading.Event()
        self._lowest = logging.CRITICAL if self._logger.disabled else self._logger.getEffectiveLevel()
        native.lib.lb_log_install()
        self._keep(self._lowest)
        self._thread = threading.Thread(target=self._run, name="native-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self._native.lib.lb_log_stop()
            self._thread.join()

    @contextmanager
    def heard_by(self, hear: Callable[[str], None]) -> Iterator[None]:
        """Until the `with` ends, `hear` gets every line of every level, on the pump's thread. None comes later."""
        self._hear = hear
        self._keep(logging.DEBUG)
        try:
            yield
        finally:
            self._keep(self._lowest)
            self._all_heard.clear()
            self._all_heard.wait()
            self._hear = None

    def _keep(self, lowest: int) -> None:
        """Keep only the lines of this level and above from now on."""
        codes = [code for code, level in self._levels.items() if level >= lowest]
        self._native.lib.lb_log_start(min(codes, default=NEVER))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        lib, ffi = self._native.lib, self._native.ffi
        text, level = ffi.new("char[]", LINE_SIZE), ffi.new("int32_t *")
        n_dropped = lib.lb_log_n_dropped()
        while True:
            length = lib.lb_log_read(text, LINE_SIZE, level, WAIT_MS if self._hear is None else HEAR_MS)
            if length >= 0:
                line = ffi.buffer(text, length)[:].decode("utf-8", "replace").rstrip()
                if line and self._hear is not None:
                    self._hear(line)
                if line:
                    self._logger.log(self._levels.get(level[0], logging.INFO), "%s", line)
                continue
            self._all_heard.set()
            if (dropped := lib.lb_log_n_dropped()) != n_dropped:
                self._logger.warning("%d lines of the native log were dropped", dropped - n_dropped)
                n_dropped = dropped
            if length == -2:
                return
