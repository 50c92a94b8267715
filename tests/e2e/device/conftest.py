"""A device that is not the CPU, and servers that compute on it beside one that does not.

These tests run with `-m device` alone (tools/device_check.sh). Then a device must be there: none is an error.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e import server_process
from tests.e2e.device.asking import Device
from tests.e2e.server_process import ServerProcess

LISTED = re.compile(r"  (?P<name>\S+): .* \((?P<kind>gpu|igpu), (?P<backend>[^,]+), (?P<mebibytes>\d+) MiB, .*\)")
"""A line of --list-devices."""


PATIENCE = 400.0
"""Seconds: a device in software compiles its kernels when they are first used, a minute for each on a busy machine."""


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    """No server of these tests is given up while it may be compiling."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(server_process, "PATIENCE", PATIENCE)
        yield


@pytest.fixture(scope="session")
def device() -> Device:
    """The first of the devices that are there."""
    command = [sys.executable, "-m", "llamabox", "--list-devices"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = [line for line in map(LISTED.fullmatch, listed.splitlines()) if line]
    assert found, f"no device but the CPU is here (a build for one, a driver, GGML_VK_VISIBLE_DEVICES?):\n{listed}"
    return Device(found[0]["name"], found[0]["backend"], int(found[0]["mebibytes"]) << 20)


@pytest.fixture(scope="session")
def model(tiny_text: Path) -> Path:
    """One of four small layers, for all that needs no real one: a device in software is slow."""
    return tiny_text


@pytest.fixture(scope="module")
def on_cpu(serve: Callable[..., ServerProcess]) -> ServerProcess:
    """A server that computes on the CPU alone, a text at a time."""
    return serve("-dev", "none", "-c", "1024", "-np", "1")
