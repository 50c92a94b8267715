"""Prints for people, also where standard output or error is a terminal of ASCII, a full disk, or closed."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO

from llamabox.log.writer import write_all

PLAIN = str.maketrans({"…": "...", "±": "+-", "–": "-", "—": "-"})
"""Replacements for terminals that have ASCII alone."""


def ensure_descriptors() -> None:
    """Descriptors 0, 1 and 2 are there: where one is closed, the next file or socket would get its number, and be
    closed, written to, or handed to a child as such. Nor does a character fail that their encoding does not have.

    Called before anything is opened.
    """
    for fd, mode in enumerate(("r", "w", "w")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
            os.set_inheritable(fd, True)
        name = ("stdin", "stdout", "stderr")[fd]
        if getattr(sys, name) is None:  # as Python leaves it then
            setattr(sys, name, os.fdopen(fd, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def settle() -> None:
    """Drop output that cannot be written: Python would complain at the end, and change the exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(text: str, stream: TextIO) -> bool:
    """Print a line, or lines. False where that cannot be: the disk is full, or the other end of the pipe is gone."""
    try:
        stream.flush()
        fd = stream.fileno()
    except (OSError, ValueError):  # io.UnsupportedOperation is both: it is no file, as in tests
        stream.write(text + "\n")
        return True
    return write_all(fd, encoded(text + "\n", stream.encoding))


def encoded(text: str, encoding: str | None) -> bytes:
    """Characters that the encoding does not have are written in others, or as escapes."""
    name = encoding or "utf-8"
    try:
        "".join(map(chr, PLAIN)).encode(name)
    except UnicodeEncodeError:
        text = text.translate(PLAIN)
    return text.encode(name, "backslashreplace")
