"""What starting costs, and what the command line answers without a model."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llamabox.artifacts.manifest import MANIFEST
from llamabox.bindings import prefix as prefixes
from tests.e2e.server_process import ServerProcess


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60, check=False)


def test_importing_llamabox_loads_nothing_native() -> None:
    probe = (
        "import sys, llamabox;"
        "maps = open('/proc/self/maps').read(); assert 'libllama' not in maps and 'ggml' not in maps;"
        "assert not {'numpy', 'cffi', 'asyncio', 'starlette'} & set(sys.modules)"
    )
    ended = run("-c", probe)
    assert ended.returncode == 0, ended.stderr


def test_a_server_of_texts_has_no_use_for_numpy() -> None:
    """It would take a tenth of a second of each start, and 10 MB."""
    ended = run("-c", "import sys, llamabox.cli, llamabox.server.app; assert 'numpy' not in sys.modules")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("flag", "expected"),
    [("--version", "llama.cpp"), ("--system-info", "CPU"), ("--list-devices", "CPU"), ("--help", "--ctx-size")],
)
def test_informs_and_exits_0(flag: str, expected: str) -> None:
    ended = run("-m", "llamabox", flag)
    assert ended.returncode == 0, ended.stderr
    assert expected in ended.stdout + ended.stderr


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run("-m", "llamabox", "--port", str(port))
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}" in ended.stderr


def test_libraries_for_gpus_do_not_quietly_compute_on_the_cpu(
    tmp_path: Path, serve: Callable[..., ServerProcess]
) -> None:
    """Those of the CPU, said to be built for CUDA: without a driver they find no device, either."""
    prefix = Path(shutil.copytree(prefixes.packaged(), tmp_path / "prefix"))
    manifest = json.loads((prefix / MANIFEST).read_bytes())
    (prefix / MANIFEST).write_text(json.dumps({**manifest, "backend": "cuda"}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ended = run("-m", "llamabox", "--native", str(prefix), "--port", str(port))
    assert ended.returncode != 0
    [error] = [line for line in ended.stderr.splitlines() if " E server.run: " in line]
    assert "the libraries are built for cuda and find no device of it" in error
    assert "-dev none" in error
    assert "doctor" in ended.stderr
    for asks_cpu in (("-dev", "none"), ("-ngl", "0")):
        server = serve("--native", str(prefix), *asks_cpu)
        assert server.post("/completion", {"prompt": "a", "n_predict": 1}).status_code == 200
        server.stop()


def test_a_silent_clients_next_probe_is_due_within_conn_idle(serve: Callable[..., ServerProcess]) -> None:
    """As the kernel has it: the server's end of the connection runs a keep-alive timer (2) of at most that long."""
    server = serve("--conn-idle", "7", "--threads-http", "1")
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
        ends = f"0100007F:{server.port:04X} 0100007F:{client.getsockname()[1]:04X} 01"
        timer = "01"  # a retransmission is due until the client has acknowledged the answer
        while timer == "01":
            [row] = [line for line in Path("/proc/net/tcp").read_text().splitlines() if ends in line]
            timer, _, due = row.split()[5].partition(":")
        assert timer == "02"
        assert 0 < int(due, 16) <= 7 * os.sysconf("SC_CLK_TCK")
