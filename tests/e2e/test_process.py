"""What starting costs, and what the command line answers without a model."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest


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
