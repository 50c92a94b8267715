"""Logging set-up of a process: one line an entry, on stderr.

verbosity 0    INFO: start, stop, what went wrong
verbosity 1    MORE: a line for each request as well
verbosity 2+   DEBUG: everything, prompts and messages included
"""

from __future__ import annotations

import logging
import sys
import time

MORE = 15
"""A level between DEBUG and INFO: what happens to each request, without its content."""

COLORS = {"DEBUG": "\033[2m", "MORE": "\033[36m", "WARNING": "\033[33m", "ERROR": "\033[31m", "CRITICAL": "\033[1;31m"}
RESET = "\033[0m"


class OneLine(logging.Formatter):
    """`12:34:56.789 I engine: text`. A newline in the text is shown as `\\n`, so that no client can forge an entry."""

    def __init__(self, colors: bool) -> None:
        super().__init__()
        self._colors = colors

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        name = record.name.removeprefix("llamabox.")
        line = f"{clock}.{int(record.msecs):03d} {record.levelname[0]} {name}: {text}"
        if self._colors and record.levelname in COLORS:
            line = f"{COLORS[record.levelname]}{line}{RESET}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def level(verbosity: int) -> int:
    """The logging level for a `-lv` value; below 0 only warnings and errors."""
    if verbosity < 0:
        return logging.WARNING
    return (logging.INFO, MORE, logging.DEBUG)[min(verbosity, 2)]


def setup(verbosity: int, colors: bool = False) -> None:
    """Give this process its one log handler. Call once, at the start of a process; calling again replaces it."""
    logging.addLevelName(MORE, "MORE")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(colors))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # other people's libraries
    logging.getLogger("llamabox").setLevel(level(verbosity))
