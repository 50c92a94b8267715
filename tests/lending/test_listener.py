"""Lending a device: what clients get, who may come, and what is left of them afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llamabox.bindings.prefix import MANIFEST, locate, packaged
from llamabox.lending import listener
from llamabox.lending.config import RpcConfig
from tests.e2e.server_process import children
from tests.lending.protocol import Client, Closed, Tensor, hello
from tests.lending.server_process import RpcServer

Lend = Callable[..., RpcServer]
MIB = 1 << 20


def test_a_client_computes_and_is_logged(lend: Lend) -> None:
    server = lend()
    with server.client() as client:
        assert client.n_devices() == 1
        assert client.sum([1, 2, 3, 4], [10, 20, 30, 40]) == (11, 22, 33, 44)
        buffer, _ = client.alloc(64 * MIB)
        data = os.urandom(64 * MIB)
        tensor = Tensor(1, buffer, client.base(buffer), 16 * MIB)
        client.set(tensor, data)
        assert client.get(tensor, len(data)) == data
        client.free(buffer)
    server.wait_idle()
    [line] = [line for line in server.log.splitlines() if " left (" in line]
    assert "127.0.0.1:" in line
    assert "64 MiB received, 64 MiB sent" in line


def test_two_clients_at_once_both_are_answered_rightly(lend: Lend) -> None:
    server = lend()
    with server.client() as first, server.client() as second:
        for i in range(20):
            assert first.sum([i], [1]) == (i + 1,)
            assert second.sum([i], [2]) == (i + 2,)


def test_many_at_once(lend: Lend) -> None:
    server = lend("--rpc-server-threads", "1")
    found: dict[int, tuple[float, ...]] = {}

    def visit(number: int) -> None:
        with server.client() as client:
            found[number] = client.sum([number], [0.5])

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: (number + 0.5,) for number in range(12)}
    server.wait_idle()


@pytest.mark.parametrize("n_threads", [1, 3])
def test_so_many_threads_compute(lend: Lend, n_threads: int) -> None:
    """OpenMP's threads stay after the first graph that has work for them."""
    server = lend("--rpc-server-threads", str(n_threads))
    with server.client() as client:
        pid = server.newest_child()
        client.memory()
        before = n_tasks(pid)
        client.sum(range(200_000), range(200_000))
        assert n_tasks(pid) == before + n_threads - 1


def test_its_threads_do_not_spin_for_long(tmp_path: Path) -> None:
    """GNU's OpenMP tells what it took from its environment when it is loaded."""
    server = RpcServer(tmp_path / "log", env={"OMP_DISPLAY_ENV": "verbose"})
    try:
        with server.client() as client:
            client.n_devices()
        if b"libgomp" in locate().joinpath("libggml-cpu.so").read_bytes():
            server.wait_log("GOMP_SPINCOUNT = '1000'")
    finally:
        server.stop()


def n_tasks(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def test_a_reserve_is_not_told_of(lend: Lend) -> None:
    memory = {}
    for reserve in ("0", "1024"):
        with lend("--rpc-server-reserve-memory", reserve).client() as client:
            memory[reserve] = client.memory()
    assert [before - after for before, after in zip(memory["0"], memory["1024"], strict=True)] == [1024 * MIB] * 2


def test_on_a_cpu_no_more_is_given_than_was_told(lend: Lend) -> None:
    """Not even where the system would promise it: a message's length alone makes ggml fill so much."""
    with lend("--rpc-server-reserve-memory", "1024", "--rpc-server-main-gpu", "-1").client() as client:
        _, total = client.memory()
        assert client.alloc(total + 512 * MIB)[0] == 0
        assert client.alloc(64 * MIB)[0] != 0


def refused(tmp_path: Path, *words: str) -> str:
    server = RpcServer(tmp_path / "refused.log", *words, wait=False)
    assert server.process.wait(60) == 1
    return server.log


def test_a_reserve_that_leaves_nothing_names_both_numbers(tmp_path: Path) -> None:
    log = refused(tmp_path, "--rpc-server-reserve-memory", "123456789")
    assert "123456789" in log
    assert f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 20} MiB in all" in log


def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    assert "--rpc-server-main-gpu 9: there is" in refused(tmp_path, "--rpc-server-main-gpu", "9")


def test_libraries_for_gpus_do_not_quietly_lend_the_cpu(lend: Lend, tmp_path: Path) -> None:
    """Those of the CPU, said to be built for CUDA: without a driver they find no device, either."""
    prefix = Path(shutil.copytree(packaged(), tmp_path / "prefix"))
    manifest = json.loads((prefix / MANIFEST).read_bytes())
    (prefix / MANIFEST).write_text(json.dumps({**manifest, "backend": "cuda"}))
    log = refused(tmp_path, "--native", str(prefix))
    assert "the libraries are built for cuda and find no device of it" in log
    assert "--rpc-server-main-gpu -1" in log
    with lend("--native", str(prefix), "--rpc-server-main-gpu", "-1").client() as client:
        assert client.sum([1], [2]) == (3,)


def test_an_address_that_is_taken(lend: Lend, tmp_path: Path) -> None:
    port = lend().port
    log = refused(tmp_path, "--rpc-server-port", str(port))
    assert f"cannot listen on 0.0.0.0:{port}" in log


def test_only_where_it_was_told_to_listen(lend: Lend) -> None:
    server = lend("--rpc-server-host", "::1")
    with pytest.raises(ConnectionRefusedError):
        server.client()
    with Client(server.port, "::1") as client:
        assert client.sum([1], [2]) == (3,)


def test_who_is_not_allowed_is_closed_unread(lend: Lend) -> None:
    server = lend("--rpc-server-allow", "127.0.0.2,10.0.0.0/8")
    with server.client(greet=False, source="127.0.0.1") as stranger:
        assert stranger.is_closed()
    with server.client(source="127.0.0.2") as client:
        assert client.sum([1], [2]) == (3,)
    assert "127.0.0.1:" in next(line for line in server.log.splitlines() if "turned away" in line)
    assert server.n_came() == 1


def test_a_wider_list_is_warned_of(lend: Lend) -> None:
    banner = "has no authentication"
    assert (log := lend().log).count(banner) == 1
    assert "lets in more" not in log
    server = lend("--rpc-server-allow", "0.0.0.0/0,192.168.0.0/16")
    server.wait_log("lets in more than loopback and private addresses: 0.0.0.0/0.")
    assert server.log.count(banner) == 1


def test_who_says_nothing_holds_nobody_up(lend: Lend) -> None:
    server = lend()
    with contextlib.ExitStack() as open_ones:
        silent = [open_ones.enter_context(server.client(greet=False)) for _ in range(100)]
        halfway = silent[-1]
        halfway.send(hello()[:20])
        with server.client() as client:
            assert client.sum([1], [2]) == (3,)
        assert server.n_came() == 1, "a process is for those who speak"
        halfway.send(hello()[20:])
        assert halfway.receive(8 + 28)
        assert silent[0].is_closed(), "the oldest had to go"


SCRIPT = """
import signal, sys
from tests.lending.protocol import Client, Tensor
client = Client(int(sys.argv[1]))
buffer, _ = client.alloc(8 << 20)
tensor = Tensor(1, buffer, client.base(buffer), 2 << 20)
client.set(tensor, b"x" * (8 << 20))
assert client.get(tensor, 1) == b"x"
print("there", flush=True)
signal.pause()
"""


def test_fifty_clients_killed_without_a_goodbye_leave_nothing(lend: Lend) -> None:
    server = lend("--rpc-server-threads", "1")
    with server.client() as client:
        client.sum([1], [2])
    before = server.settled_memory()
    for _ in range(2):
        killed = [
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(server.port)],
                stdout=subprocess.PIPE,
                cwd=Path(__file__).parents[2],
            )
            for _ in range(25)
        ]
        for process in killed:
            assert process.stdout
            with process.stdout:
                assert process.stdout.readline() == b"there\n"
        assert len(children(server.process.pid)) >= 25
        for process in killed:
            process.kill()
        for process in killed:
            process.wait()
        server.wait_idle()
    assert server.n_came() == 51
    assert abs(server.settled_memory() - before) < 10 * MIB
    with server.client() as client:
        assert client.sum([1], [2]) == (3,)


def test_a_child_that_dies_closes_its_client_alone(lend: Lend) -> None:
    server = lend()
    with server.client() as other, server.client() as client:
        os.kill(server.newest_child(), signal.SIGKILL)
        with pytest.raises(Closed):
            client.receive(1)
        assert other.sum([1], [2]) == (3,)
    server.wait_log("lost its process, which was killed by SIGKILL")


@pytest.mark.slow
def test_a_process_that_does_not_end_with_its_client_is_ended(lend: Lend) -> None:
    server = lend()
    with server.client():
        pid = server.newest_child()
        os.kill(pid, signal.SIGSTOP)  # as good as a computation without an end
    server.wait_log("still at work")
    server.wait_idle()
    assert not is_running(pid)


def test_the_process_that_waits_may_die(lend: Lend) -> None:
    server = lend()
    server.settled_memory()
    [spare] = children(server.process.pid)
    os.kill(spare, signal.SIGKILL)
    while is_running(spare):
        pass
    with server.client() as client:
        assert client.sum([1], [2]) == (3,)


def test_one_more_than_may_be_served_is_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "MAX_CLIENTS", 2)
    config = RpcConfig(host="127.0.0.1", n_threads=1)

    def visit(port: int) -> None:
        with Client(port) as one, Client(port) as two:
            with pytest.raises(Closed):
                Client(port)
            assert one.sum([1], [2]) == two.sum([2], [1]) == (3,)

    async def serve() -> None:
        sock = listener.bind(config.host, 0)
        served = listener.RpcListener(config, sock)
        served.start()
        try:
            await asyncio.to_thread(visit, sock.getsockname()[1])
        finally:
            await served.close()

    with caplog.at_level("INFO"):
        asyncio.run(serve())
    assert "turned away: 2 clients are served already" in caplog.text


def test_clients_that_ask_and_leave_are_no_news(lend: Lend) -> None:
    server = lend("-lv", "0")
    for _ in range(5):
        with server.client() as client:
            client.n_devices()
    with server.client() as client:
        server.wait_log("is served by process")
    server.wait_log(" left (")
    assert server.log.count(" left (") == server.log.count("is served by") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_its_processes(lend: Lend, number: int) -> None:
    server = lend()
    with server.client() as client, server.client(greet=False):
        pids = children(server.process.pid)
        assert server.stop(number) == 0
        assert client.is_closed()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", server.port)):
        pass


def test_its_processes_end_with_it_however_it_ends(lend: Lend) -> None:
    server = lend()
    with server.client() as client:
        pids = children(server.process.pid)
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        assert client.is_closed()
    while any(is_running(pid) for pid in pids):
        signal.sigtimedwait([], 0.01)


def is_running(pid: int) -> bool:
    """Whoever inherits a dead process may take its time to reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_process_that_hangs_is_killed_and_its_client_hears_of_it(lend: Lend) -> None:
    server = lend("--hang-timeout", "1")
    with server.client() as client:
        assert client.sum([1], [2]) == (3,)
        os.kill(server.newest_child(), signal.SIGSTOP)
        with pytest.raises(Closed):
            client.sum([1], [2])
    server.wait_log("gave no sign of life (--hang-timeout) and is killed")
    with server.client() as client:
        assert client.sum([1], [2]) == (3,)


def test_a_client_may_be_silent_for_longer_than_its_process(lend: Lend) -> None:
    server = lend("--hang-timeout", "0.5")
    with server.client() as client:
        assert client.sum([1], [2]) == (3,)
        time.sleep(3)
        assert client.sum([1], [2]) == (3,)
    server.wait_idle()
    assert "sign of life" not in server.log
