"""Where ggml aborts, the log says why, in the log's own form; a debugger is for who asked to see everything."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llamabox.bindings.ffi import Native

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
