"""Logging set-up of a process: one line an entry, on stderr, with secrets masked. No caller waits for it.

verbosity 0    INFO: start, stop, a line for each request, what went wrong
verbosity 1    MORE: a line for each health check and scrape as well
verbosity 2+   DEBUG: everything, prompts and messages included
"""

from __future__ import annotations

import json
import logging
import re
import time
from datetime import UTC, datetime
from typing import Any

from llamabox.log.masking import masked
from llamabox.log.writer import LogWriter

MORE = 15
"""A level between DEBUG and INFO: what comes by the clock, again and again."""

FACTS = "facts"
"""`extra={FACTS: {...}}` at a logging call: the facts of the text by name, for readers of JSON."""

COLORS = {"DEBUG": "\033[2m", "MORE": "\033[36m", "WARNING": "\033[33m", "ERROR": "\033[31m", "CRITICAL": "\033[1;31m"}
RESET = "\033[0m"


UNSEEN = re.compile(
    "[\0-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Characters that end a line, steer a terminal, turn the direction of writing, or are not to be seen."""


def escaped(text: str) -> str:
    """The text with those as `\\x1b` or `\\u2028`: clients' words can neither forge an entry nor steer a terminal."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class OneLine(logging.Formatter):
    """`12:34:56.789 I engine: text`. The lines of a trace below it are indented, as no entry is."""

    def __init__(self, colors: bool) -> None:
        super().__init__()
        self._colors = colors

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = escaped(masked(record.getMessage()))
        name = record.name.removeprefix("llamabox.")
        line = f"{clock}.{int(record.msecs):03d} {record.levelname[0]} {name}: {text}"
        if self._colors and record.levelname in COLORS:
            line = f"{COLORS[record.levelname]}{line}{RESET}"
        if record.exc_info:
            trace = masked(self.formatException(record.exc_info))
            line += "".join(f"\n  {escaped(one)}" for one in trace.split("\n"))
        return line


class JsonLine(logging.Formatter):
    """`{"time": "2025-01-31T12:34:56.789+00:00", "level": "info", "logger": "engine", "message": …}` and the facts."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix("llamabox."),
            "message": masked(record.getMessage()),
            **{
                name: masked(fact) if isinstance(fact, str) else fact
                for name, fact in getattr(record, FACTS, {}).items()
            },
        }
        if record.exc_info:
            entry["exception"] = masked(self.formatException(record.exc_info))
        return json.dumps(entry).replace("\x7f", "\\u007f")  # in ASCII: no text can break the line or its encoding


def level(verbosity: int) -> int:
    """The logging level for a `-lv` value; below 0 only warnings and errors."""
    if verbosity < 0:
        return logging.WARNING
    return (logging.INFO, MORE, logging.DEBUG)[min(verbosity, 2)]


def setup(verbosity: int, colors: bool = False, *, as_json: bool = False) -> None:
    """Give this process its one log handler. Call once, at the start of a process; calling again replaces it.

    JSON is never coloured.
    """
    logging.addLevelName(MORE, "MORE")
    logging.captureWarnings(True)  # Python would write them to stderr itself, and wait for its reader
    handler = LogWriter()
    handler.setFormatter(JsonLine() if as_json else OneLine(colors))
    root = logging.getLogger()
    for old in root.handlers:
        if isinstance(old, LogWriter):
            old.close()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # other people's libraries
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every form that is wrong; clients know
    logging.getLogger("llamabox").setLevel(level(verbosity))
