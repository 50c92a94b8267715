"""Writes the log from a thread of its own: a logging call never waits for the log's reader."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import threading
from collections import deque

MAX_LINES, MAX_CHARACTERS = 8192, 4 << 20
"""Bounds of the lines that wait. A pipe that nobody reads holds 64 KiB; the rest is dropped, and counted."""

EXIT_SECONDS = 1.0
"""Seconds that the end of a process waits for the last lines to be written."""


class LogWriter(logging.Handler):
    """A handler that hands its lines to a daemon thread, which writes them to descriptor `fd`.

    Any thread may log, and none is ever blocked by it. Lines beyond the bounds, and those that the system refuses, as
    on a full disk, are dropped; once lines can be written again one says how many. `flush` waits, a second at most, and
    so does `logging.shutdown()`, which has to be called before `os._exit`.
    """

    def __init__(self, fd: int = 2, seconds: float = EXIT_SECONDS) -> None:
        super().__init__()
        self._fd = fd
        self._seconds = seconds
        self._encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        self._lines: deque[str] = deque()
        self._n_characters = 0
        self._n_dropped = 0
        self._is_writing = False
        self._is_closed = False
        self._changed = threading.Condition()  # re-entrant: finalisers that the garbage collector runs may log too
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
        except Exception:  # arguments that do not fit their text
            self.handleError(record)
            return
        with self._changed:
            if len(self._lines) >= MAX_LINES or self._n_characters + len(line) > MAX_CHARACTERS:
                self._n_dropped += 1
                return
            self._lines.append(line)
            self._n_characters += len(line)
            self._changed.notify_all()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Count the line as dropped: it must not fail its caller, nor be written to standard error."""
        with self._changed:
            self._n_dropped += 1

    def flush(self) -> None:
        """Wait until all lines are written, but not for long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._is_writing, self._seconds)

    def close(self) -> None:
        """The thread ends once it has written what it has. Idempotent."""
        self.flush()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        super().close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines or self._is_closed)
                if not self._lines:
                    return
                n_dropped, self._n_dropped = self._n_dropped, 0
                text = "".join(self._lines)
                n_lines = len(self._lines)
                self._lines.clear()
                self._n_characters = 0
                self._is_writing = True
            if n_dropped:
                text = self._confession(n_dropped) + text
            if not write_all(self._fd, text.encode(self._encoding, "backslashreplace")):
                with self._changed:
                    self._n_dropped += n_dropped + n_lines

    def _confession(self, n_dropped: int) -> str:
        text = f"{n_dropped} lines of the log were dropped: they could not be written, or nobody read them in time"
        return self.format(logging.LogRecord("llamabox.log", logging.WARNING, __file__, 0, text, None, None)) + "\n"


def write_all(fd: int, data: bytes) -> bool:
    """Write, waiting as long as that takes; False where it cannot be done: a full disk, a closed pipe."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody else made the terminal or pipe so
            with contextlib.suppress(OSError, ValueError):
                select.select([], [fd], [], 1.0)
        except OSError:
            return False
    return True
