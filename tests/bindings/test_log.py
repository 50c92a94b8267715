"""libllama's log reaches Python's logging, whole lines in order, and never the other way round."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamabox.bindings.ffi import Native
from llamabox.bindings.log import LogPump


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.getLogger("test.native")
    made.setLevel(logging.DEBUG)
    yield made
    made.setLevel(logging.NOTSET)


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "test.native"]


def test_levels_and_pieces(native: Native, logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    lib = native.lib
    with LogPump(native, logger):
        lib.lb_log_callback(lib.GGML_LOG_LEVEL_WARN, b"one\ntwo\n", native.ffi.NULL)
        lib.lb_log_callback(lib.GGML_LOG_LEVEL_INFO, b"load", native.ffi.NULL)
        lib.lb_log_callback(lib.GGML_LOG_LEVEL_CONT, b"ing...", native.ffi.NULL)
        lib.lb_log_callback(lib.GGML_LOG_LEVEL_CONT, b" done\n", native.ffi.NULL)
        lib.lb_log_callback(lib.GGML_LOG_LEVEL_DEBUG, b"no newline", native.ffi.NULL)
        lib.lb_log_callback(lib.GGML_LOG_LEVEL_ERROR, b"\xff bad \n", native.ffi.NULL)
    assert lines(caplog) == [
        (logging.WARNING, "one"),
        (logging.WARNING, "two"),
        (logging.DEBUG, "loading... done"),  # libllama's INFO is a page at every load
        (logging.DEBUG, "no newline"),
        (logging.ERROR, "\N{REPLACEMENT CHARACTER} bad"),
    ]


def test_a_full_ring_drops_lines_and_says_how_many(
    native: Native, logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody reads while this thread writes a megabyte: it must come back, and what is missing must be counted."""
    lib = native.lib
    lib.lb_log_start(lib.GGML_LOG_LEVEL_INFO)
    before = lib.lb_log_n_dropped()
    for number in range(1000):
        lib.lb_log_callback(lib.GGML_LOG_LEVEL_INFO, b"%4d" % number + b"x" * 1000 + b"\n", native.ffi.NULL)
    dropped = lib.lb_log_n_dropped() - before
    with LogPump(native, logger):
        pass
    kept = [text for _, text in lines(caplog)]
    assert 0 < dropped < 1000
    assert len(kept) == 1000 - dropped
    assert [int(text[:4]) for text in kept] == list(range(len(kept)))


def test_a_line_longer_than_the_buffer_comes_in_parts(
    native: Native, logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    with LogPump(native, logger):
        native.lib.lb_log_callback(native.lib.GGML_LOG_LEVEL_INFO, b"y" * 20000 + b"\n", native.ffi.NULL)
    assert "".join(text for _, text in lines(caplog)) == "y" * 20000


def test_many_writers(native: Native, logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    """Whole-line calls of several threads come out as whole lines, each thread's in its order."""
    lib = native.lib

    def write(name: bytes) -> None:
        for number in range(200):
            lib.lb_log_callback(lib.GGML_LOG_LEVEL_INFO, b"%s %d\n" % (name, number), native.ffi.NULL)

    with LogPump(native, logger):
        writers = [threading.Thread(target=write, args=(name,)) for name in (b"a", b"b", b"c")]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    found = [text for _, text in lines(caplog)]
    for name in "abc":
        assert [text for text in found if text[0] == name] == [f"{name} {number}" for number in range(200)]


def test_lines_below_the_logger_s_level_are_not_kept(
    native: Native, logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    logger.setLevel(logging.WARNING)
    lib = native.lib
    with LogPump(native, logger):
        logger.setLevel(logging.DEBUG)
        for level in (lib.GGML_LOG_LEVEL_DEBUG, lib.GGML_LOG_LEVEL_INFO, lib.GGML_LOG_LEVEL_ERROR):
            lib.lb_log_callback(level, b"line %d\n" % level, native.ffi.NULL)
    assert lines(caplog) == [(logging.ERROR, f"line {lib.GGML_LOG_LEVEL_ERROR}")]


def test_close_is_idempotent_and_a_pump_can_follow(native: Native, logger: logging.Logger) -> None:
    for _ in range(2):
        pump = LogPump(native, logger)
        pump.close()
        pump.close()


def test_the_first_error_is_kept_until_forgotten(native: Native) -> None:
    lib, ffi = native.lib, native.ffi
    lib.lb_log_forget_error()
    assert native.first_error() == "the library does not say why"
    lib.lb_log_callback(lib.GGML_LOG_LEVEL_ERROR, b"the reason\nthe consequence\n", ffi.NULL)
    assert native.first_error() == "the reason"
    lib.lb_log_forget_error()
    assert native.first_error() == "the library does not say why"


ABORT = """
import ctypes, logging, sys
from llamabox.log import entries as log
from llamabox.bindings import ffi, backend
from llamabox.bindings.log import LogPump
log.setup(0, as_json=True)
native = ffi.load()
with LogPump(native):
    backend.start(native)
    library = ctypes.CDLL(str(native.prefix.path / sys.argv[1]))
    library.ggml_abort(b"vocab.cpp", 7, b"GGML_ASSERT(%s) failed", b"1 == 2")
"""


@pytest.mark.model
@pytest.mark.parametrize("wants_trace", [False, True])
def test_an_abort_is_a_line_of_the_log(native: Native, tmp_path: Path, wants_trace: bool) -> None:
    """It says why, in the log's own form; a debugger is for who asked to see everything."""
    resource = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
    debugger = tmp_path / "gdb"
    debugger.write_text("#!/bin/sh\necho a page of gdb >&2\n")
    debugger.chmod(0o755)
    library = "libggml-base.dylib" if sys.platform == "darwin" else "libggml-base.so"
    run = subprocess.run(
        [sys.executable, "-c", resource + ABORT, library],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            "PATH": str(tmp_path),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            **({} if wants_trace else {"GGML_NO_BACKTRACE": "1"}),
        },
    )
    assert run.returncode == -signal.SIGABRT
    assert ("a page of gdb" in run.stderr) == wants_trace
    lines = [json.loads(line) for line in run.stderr.splitlines() if line.startswith("{") or not wants_trace]
    assert [line["message"] for line in lines] == ["vocab.cpp:7: GGML_ASSERT(1 == 2) failed"]
    assert lines[0]["level"] == "error"
