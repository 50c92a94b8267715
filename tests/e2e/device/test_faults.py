"""A device that is not there: a line that says so, and an exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.device.asking import Device
from tests.suite.ports import free_port

pytestmark = pytest.mark.device


def ended(*words: str) -> subprocess.CompletedProcess[str]:
    """A server that must not come up."""
    command = [sys.executable, "-m", "llamabox", "--port", str(free_port()), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def last_lines(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join(done.stderr.splitlines()[-4:])


def test_a_device_that_is_not_there_is_told_with_those_that_are(device: Device, model: Path) -> None:
    done = ended("-m", str(model), "-dev", "CUDA77")
    assert done.returncode == 1
    assert f"--device CUDA77: there is no such device, but {device.name}" in done.stderr
