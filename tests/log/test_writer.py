"""The log's thread: nobody who logs waits, and what is lost is counted."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator

import pytest

from llamabox.log.writer import MAX_CHARACTERS, MAX_LINES, LogWriter


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("llamabox.x", logging.INFO, __file__, 0, text, None, None)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(fd)


def read_until(fd: int, end: str) -> str:
    text = ""
    while end not in text:
        text += os.read(fd, 1 << 20).decode()
    return text


def test_lines_come_in_order_and_flush_waits_for_them(pipe: tuple[int, int]) -> None:
    writer = LogWriter(pipe[1])
    for i in range(200):
        writer.handle(record(f"line {i}"))
    writer.close()
    assert os.read(pipe[0], 1 << 16).decode().splitlines() == [f"line {i}" for i in range(200)]
    writer.close()


@pytest.mark.parametrize(("n_lines", "length"), [(3 * MAX_LINES, 20), (5, MAX_CHARACTERS // 2)])
def test_a_pipe_that_nobody_reads_holds_up_nobody(pipe: tuple[int, int], n_lines: int, length: int) -> None:
    """The thread hangs in its write, and yet all of this returns; later what is lost is counted rightly."""
    writer = LogWriter(pipe[1], seconds=0.05)
    writer.handle(record("y" * (1 << 20)))  # more than a pipe holds
    while os.read(pipe[0], 1) != b"y":
        pass
    for i in range(n_lines):
        writer.handle(record(f"{i:09d}".ljust(length, "x")))
    writer.flush()
    text: list[str] = []
    reader = threading.Thread(target=lambda: text.append(read_until(pipe[0], "at the end\n")))
    reader.start()
    while writer._lines:  # the room is there again
        time.sleep(0.01)
    writer.handle(record("at the end"))
    reader.join(60)
    [first, *lines] = text[0].splitlines()
    assert set(first) == {"y"}
    [told] = [line for line in lines if "were dropped" in line]
    n_kept = sum(line.endswith("x") for line in lines)
    assert int(told.split()[0]) == n_lines - n_kept > 0
    assert lines[-1] == "at the end"


def test_a_full_disk_and_a_closed_pipe_are_borne_and_told(pipe: tuple[int, int]) -> None:
    with open("/dev/full", "wb") as full:
        writer = LogWriter(full.fileno())
        for _ in range(3):
            writer.handle(record("lost"))
            writer.flush()
        os.dup2(pipe[1], full.fileno())  # there is room again
        writer.handle(record("kept"))
        writer.close()
    told, kept = os.read(pipe[0], 4096).decode().splitlines()
    assert told.startswith("3 lines of the log were dropped")
    assert kept == "kept"
    os.close(pipe[0])
    writer = LogWriter(pipe[1])
    writer.handle(record("nobody is there"))
    writer.close()


def test_a_pipe_that_somebody_made_non_blocking(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    writer = LogWriter(pipe[1])
    writer.handle(record("z" * (1 << 20)))
    text = read_until(pipe[0], "\n")
    assert text == "z" * (1 << 20) + "\n"
    writer.close()


def test_a_line_that_cannot_be_formatted_is_counted(pipe: tuple[int, int]) -> None:
    writer = LogWriter(pipe[1])
    writer.handle(logging.LogRecord("x", logging.INFO, __file__, 0, "%d", ("a",), None))
    writer.handle(record("\udcff \u2028 é"))
    writer.close()
    told, line = os.read(pipe[0], 4096).decode().split("\n")[:2]
    assert told.startswith("1 lines")
    assert line == "\\udcff \u2028 é"
