"""ggml's own client with our server, ggml's own server with our client: one text."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamabox.demo import ensure_demo_model
from tests.lending.protocol import Client
from tests.lending.server_process import WITHIN, RpcServer
from tests.suite.ports import free_port

Lend = Callable[..., RpcServer]

pytestmark = pytest.mark.model


def text_of(*endpoint: str) -> str:
    command = [sys.executable, "-m", "tests.lending.real_client", str(ensure_demo_model(progress=False)), *endpoint]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def local_text() -> str:
    text = text_of()
    assert "Rome" in text
    return text


@pytest.fixture
def ggml_port(ggml_rpc_server: Path) -> Iterator[int]:
    """Where llama.cpp's own server lends the CPU."""
    port = free_port()
    with subprocess.Popen([ggml_rpc_server, "-p", str(port), "-t", "2"], stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + WITHIN
        while not listens(port):
            assert process.poll() is None
            assert time.monotonic() < deadline
        yield port
        process.send_signal(signal.SIGKILL)


def listens(port: int) -> bool:
    try:
        Client(port).close()
    except OSError:
        time.sleep(0.02)
        return False
    return True


def test_ggmls_client_gets_the_local_text_from_our_server(lend: Lend, local_text: str) -> None:
    server = lend("--rpc-server-threads", "2")
    assert text_of(f"127.0.0.1:{server.port}") == local_text
    server.wait_idle()
    assert "lost its process" not in server.log


def test_two_of_them_at_once(lend: Lend, local_text: str) -> None:
    server = lend("--rpc-server-threads", "1")
    command = [sys.executable, "-m", "tests.lending.real_client", str(ensure_demo_model(progress=False))]
    root = Path(__file__).parents[2]
    both = [
        subprocess.Popen([*command, f"127.0.0.1:{server.port}"], cwd=root, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[0] for process in both] == [local_text] * 2


def test_a_second_load_takes_its_large_tensors_from_the_cache(lend: Lend, local_text: str, tmp_path: Path) -> None:
    server = lend("--rpc-server-threads", "2", "--rpc-server-cache", str(tmp_path / "tensors"))
    for _ in range(2):
        assert text_of(f"127.0.0.1:{server.port}") == local_text
        server.wait_idle()
    first, second = (mebibytes_received(line) for line in server.log.splitlines() if " MiB received, " in line)
    kept = sum(path.stat().st_size for path in (tmp_path / "tensors").iterdir()) / 2**20
    assert kept > 10
    assert first - second == pytest.approx(kept, abs=2)


def mebibytes_received(line: str) -> float:
    return float(line.split(" MiB received, ")[0].split()[-1])


def test_our_protocol_client_is_understood_by_ggmls_server(ggml_port: int) -> None:
    """The oracle of the other tests speaks as ggml does."""
    with Client(ggml_port) as client:
        assert client.n_devices() == 1
        assert client.sum([1, 2], [3, 4]) == (4, 6)


def test_ggmls_server_and_ours_tell_of_the_same_memory(ggml_port: int, lend: Lend) -> None:
    with Client(ggml_port) as theirs, lend().client() as ours:
        assert ours.memory() == theirs.memory()
