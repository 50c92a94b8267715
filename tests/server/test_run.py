"""The server process: where it listens, how it ends, with which code."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from llamabox.clients.state import WorkerState
from llamabox.errors import ListenError, LlamaboxError, ModelLoadError, NativeMismatch, NativeMissing
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.hosted.text import HostedText
from llamabox.server.listening.binding import bind_sockets
from llamabox.server.listening.config import ListenConfig
from llamabox.server.listening.doors import open_doors
from llamabox.server.run import serve
from llamabox.server.signals import catching_signals
from llamabox.server.start import run
from tests.server.fake_client import FakeTextClient, delta, finished, saying, started
from tests.server.harness import WITHIN, running, text_app
from tests.suite.ports import free_port


async def served(client: FakeTextClient, config: ListenConfig) -> int:
    with catching_signals(client) as signalled:
        return await serve(config, text_app(client, config), open_doors(config), signalled)


@contextlib.asynccontextmanager
async def serving(client: FakeTextClient, config: ListenConfig) -> AsyncIterator[asyncio.Task[int]]:
    """serve() as a task; a test ends it with a signal to this very process."""
    async with asyncio.timeout(WITHIN):
        task = asyncio.create_task(served(client, config))
        await client.started.wait()
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait((task,))


def connect(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN)


async def until_refused(http: httpx.AsyncClient) -> None:
    """By a 503, or because nobody listens any more."""
    with contextlib.suppress(httpx.HTTPError):
        while (await http.get("/health")).status_code == 200:
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(number: signal.Signals) -> None:
    async def scene() -> None:
        client = FakeTextClient(saying("a"))
        client.loaded.set()
        port = free_port()
        async with serving(client, ListenConfig(port=port)) as task, connect(port) as http:
            assert (await http.get("/health")).status_code == 200
            os.kill(os.getpid(), number)
            assert await task == 0
            assert client.stopped.is_set()

    asyncio.run(scene())


def test_a_signal_to_the_worker_ends_it_with_0_and_in_order() -> None:
    async def scene() -> None:
        client = FakeTextClient()
        client.loaded.set()
        port = free_port()
        async with serving(client, ListenConfig(port=port)) as task, connect(port) as http, connect(port) as idle:
            await idle.get("/health")
            asking = asyncio.create_task(http.post("/completion", json={"prompt": "a", "stream": True}))
            generation = await client.submitted()
            generation.push(started(generation.submit), delta(generation.submit, "one", 1))
            client.stop_asked.set()
            await until_refused(idle)
            generation.push(delta(generation.submit, "two", 2), finished(generation.submit, 2))
            assert '"content":"two"' in (await asking).text
            assert await task == 0
            assert generation.n_aborts == 0

    asyncio.run(scene())


def test_a_signal_to_the_worker_while_loading_ends_it_with_0() -> None:
    async def scene() -> None:
        client = FakeTextClient()
        client.state = WorkerState.LOADING
        async with serving(client, ListenConfig(port=free_port())) as task:
            client.stop_asked.set()
            assert await task == 0

    asyncio.run(scene())


@pytest.mark.parametrize("worker_is_first", [True, False])
def test_a_signal_to_server_and_worker_is_not_asking_twice(worker_is_first: bool) -> None:
    """Asking twice would end this very process."""

    async def scene() -> None:
        client = FakeTextClient()
        client.loaded.set()
        port = free_port()
        async with serving(client, ListenConfig(port=port)) as task, connect(port) as http, connect(port) as idle:
            await idle.get("/health")
            asking = asyncio.create_task(http.post("/completion", json={"prompt": "a", "stream": True}))
            generation = await client.submitted()
            ways = [client.stop_asked.set, lambda: os.kill(os.getpid(), signal.SIGTERM)]
            for way in ways if worker_is_first else reversed(ways):
                way()
                await until_refused(idle)
            generation.push(started(generation.submit), finished(generation.submit, 0))
            assert (await asking).status_code == 200
            assert await task == 0

    asyncio.run(scene())


def test_a_signal_while_loading_ends_it_with_0() -> None:
    async def scene() -> None:
        client = FakeTextClient()
        client.state = WorkerState.LOADING
        port = free_port()
        async with serving(client, ListenConfig(port=port)) as task, connect(port) as http:
            assert (await http.get("/health")).status_code == 503
            os.kill(os.getpid(), signal.SIGTERM)
            assert await task == 0

    asyncio.run(scene())


def test_running_requests_may_end_and_new_ones_are_refused() -> None:
    async def scene() -> None:
        client = FakeTextClient()
        client.loaded.set()
        port = free_port()
        async with serving(client, ListenConfig(port=port)) as task, connect(port) as http, connect(port) as idle:
            await idle.get("/health")
            asking = asyncio.create_task(http.post("/completion", json={"prompt": "a", "stream": True}))
            generation = await client.submitted()
            generation.push(started(generation.submit), delta(generation.submit, "one", 1))
            os.kill(os.getpid(), signal.SIGTERM)
            await until_refused(idle)
            generation.push(delta(generation.submit, "two", 2), finished(generation.submit, 2))
            assert '"content":"two"' in (await asking).text
            assert await task == 0
            assert generation.n_aborts == 0

    asyncio.run(scene())


def test_requests_that_do_not_end_are_cut_off_with_an_error() -> None:
    async def scene() -> None:
        client = FakeTextClient()
        client.loaded.set()
        port = free_port()
        config = ListenConfig(port=port, shutdown_grace=0.05)
        async with serving(client, config) as task, connect(port) as http:
            asking = asyncio.create_task(http.post("/completion", json={"prompt": "a", "stream": True}))
            generation = await client.submitted()
            generation.push(started(generation.submit), delta(generation.submit, "one", 1))
            os.kill(os.getpid(), signal.SIGTERM)
            assert await task == 0
            assert '"type":"unavailable_error"' in (await asking).text

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("error", "code"),
    [(ModelLoadError("not a GGUF"), 1), (NativeMissing("build it"), 2), (NativeMismatch("rebuild"), 2)],
)
def test_a_load_that_fails_ends_it_with_one_line(
    error: LlamaboxError, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    client = FakeTextClient()
    client.load_error = error
    config = ListenConfig(port=free_port())
    assert run(config, lambda: client, lambda: partial(HostedText, ModelConfig())) == code
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == [error.message]
    assert client.stopped.is_set()


def test_the_model_loads_while_what_serves_is_imported() -> None:
    client = FakeTextClient()
    client.load_error = ModelLoadError("not a GGUF")
    had_started: list[bool] = []

    def importer() -> Callable[[FakeTextClient], HostedText]:
        had_started.append(client.started.is_set())
        return partial(HostedText, ModelConfig())

    assert run(ListenConfig(port=free_port()), lambda: client, importer) == 1
    assert had_started == [True]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_amid_the_imports_ends_it_with_0(number: signal.Signals) -> None:
    client = FakeTextClient()

    def importer() -> Callable[[FakeTextClient], HostedText]:
        os.kill(os.getpid(), number)
        return partial(HostedText, ModelConfig())

    assert run(ListenConfig(port=free_port()), lambda: client, importer) == 0
    assert client.stopped.is_set()


def test_an_import_that_fails_leaves_no_worker() -> None:
    client = FakeTextClient()

    def importer() -> Callable[[FakeTextClient], HostedText]:
        raise ImportError("half an installation")

    with pytest.raises(ImportError, match="half"):
        run(ListenConfig(port=free_port()), lambda: client, importer)
    assert client.stopped.is_set()


def test_a_port_that_is_taken_is_found_before_anything_is_loaded() -> None:
    port = free_port()
    config = ListenConfig(port=port)
    client = FakeTextClient()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ListenError, match=f"127.0.0.1:{port}: .*in use"):
        run(config, lambda: client, lambda: partial(HostedText, ModelConfig()))
    assert not client.started.is_set()


def test_hosts_that_are_none() -> None:
    for host in ("no.such.host.invalid", "203.0.113.7"):
        with pytest.raises(ListenError, match=host):
            bind_sockets([host], 0)


def test_a_port_that_is_shared_by_those_that_want_it() -> None:
    with contextlib.ExitStack() as stack:
        (first,) = bind_sockets(["127.0.0.1"], 0, reuse_port=True)
        stack.enter_context(first)
        port = first.getsockname()[1]
        stack.enter_context(bind_sockets(["127.0.0.1"], port, reuse_port=True)[0])
        with pytest.raises(ListenError, match="in use"):  # who does not ask for it wants the port alone
            bind_sockets(["127.0.0.1"], port)


def test_several_hosts_and_a_unix_socket() -> None:
    async def scene(path: str) -> None:
        client = FakeTextClient()
        client.loaded.set()
        port = free_port()
        config = ListenConfig(port=port, hosts=("127.0.0.1", "::1", path))
        async with serving(client, config) as task:
            for url in (f"http://127.0.0.1:{port}", f"http://[::1]:{port}"):
                async with httpx.AsyncClient(base_url=url, timeout=WITHIN) as http:
                    assert (await http.get("/health")).status_code == 200
            async with httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=path), base_url="http://x", timeout=WITHIN
            ) as http:
                assert (await http.get("/health")).status_code == 200
            with pytest.raises(ListenError, match=r"box\.sock: .*in use"):
                bind_sockets([path], 0)
            os.kill(os.getpid(), signal.SIGTERM)
            assert await task == 0
        assert not Path(path).exists()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scene(f"{folder}/box.sock"))


@pytest.mark.parametrize(
    ("hosts", "ipv4", "ipv6"),
    [
        (["::"], True, True),
        (["*"], True, True),
        (["[::]"], True, True),
        (["::", "0.0.0.0"], True, True),
        (["0.0.0.0", "::"], True, True),
        (["0.0.0.0"], True, False),
        (["::", "127.0.0.1"], True, True),
        (["::1"], False, True),
        (["localhost", "127.0.0.1", "::1"], True, True),
        (["*", "*"], True, True),
    ],
)
def test_who_reaches_it(hosts: list[str], ipv4: bool, ipv6: bool) -> None:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(sock) for sock in bind_sockets(hosts, 0)]
        port = sockets[0].getsockname()[1]
        assert {sock.getsockname()[1] for sock in sockets} == {port}
        for host, reached in (("127.0.0.1", ipv4), ("::1", ipv6)):
            try:
                socket.create_connection((host, port), timeout=10).close()
            except ConnectionRefusedError:
                assert not reached, host
            else:
                assert reached, host


def test_all_but_one_of_ipv4_is_ipv6_alone() -> None:
    """`::` beside an IPv4 address takes no other IPv4 address."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(sock) for sock in bind_sockets(["::", "127.0.0.1"], 0)]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", sockets[0].getsockname()[1]), timeout=10)


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """The name box.example stands for these."""
    families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
    found = [
        (family, socket.SOCK_STREAM, 6, "", (address, 0)) for family, address in zip(families, addresses, strict=True)
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda name, *_, **__: found if name == "box.example" else 1 / 0)


def test_a_name_is_all_of_its_addresses_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "203.0.113.7", "::1", "127.0.0.1", "127.0.0.1")
    with contextlib.ExitStack() as stack:
        names = [stack.enter_context(sock).getsockname()[0] for sock in bind_sockets(["box.example"], 0)]
    assert names == ["::1", "127.0.0.1"]
    resolving(monkeypatch, "203.0.113.7", "203.0.113.8")
    with pytest.raises(ListenError, match=r"box\.example:\d+: Cannot assign requested address"):
        bind_sockets(["127.0.0.1", "box.example"], 0)


def test_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_family(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, kind)

    real = socket.socket
    monkeypatch.setattr("llamabox.server.listening.binding.socket.socket", of_family)
    (sock,) = bind_sockets(["*"], 0)
    with sock:
        assert sock.getsockname()[0] == "0.0.0.0"
    with pytest.raises(ListenError, match="::1:0: Address family not supported"):
        bind_sockets(["::1"], 0)


@pytest.mark.parametrize("host", ["127..0.0.1", "a" * 64 + ".example", "\udcff"])
def test_a_host_that_cannot_be_a_name(host: str) -> None:
    with pytest.raises(ListenError, match="cannot listen on"):
        bind_sockets([host], 0)


def test_a_unix_socket_nobody_listens_on_is_replaced() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/box.sock"
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(path)
        bind_sockets([path], 0)[0].close()
        Path(path).unlink()
        Path(path).write_text("mine")
        with pytest.raises(ListenError, match=r"box\.sock: .*in use"):
            bind_sockets([path], 0)
        assert Path(path).read_text() == "mine"


def test_idle_connections_and_slow_headers_are_closed() -> None:
    async def scene() -> None:
        client = FakeTextClient()
        client.loaded.set()
        port = free_port()
        async with serving(client, ListenConfig(port=port, keep_alive=0.05)):
            for sent in (b"", b"GET /health HTTP/1.1\r\nHost"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(sent)
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()

    asyncio.run(scene())


def test_blocking_work_has_as_many_threads_as_were_asked_for() -> None:
    """Two pass a barrier for two, and no third thread ever helps."""

    async def scene() -> None:
        client = FakeTextClient()
        client.loaded.set()
        barrier = threading.Barrier(2)

        def work() -> int:
            barrier.wait(WITHIN)
            return threading.get_ident()

        async with serving(client, ListenConfig(port=free_port(), n_threads_http=2)):
            assert len(set(await asyncio.gather(*[asyncio.to_thread(work) for _ in range(8)]))) == 2

    asyncio.run(scene())


@pytest.mark.parametrize("seconds", [60, 7])
def test_a_silent_client_is_probed(seconds: int) -> None:
    async def scene() -> None:
        async with running(FakeTextClient(), ListenConfig(conn_idle=seconds)) as server:
            await server.http.get("/health")
            [connection] = server.listener._connections
            sock = connection.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            told = [getattr(socket, name) for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")]
            assert [sock.getsockopt(socket.IPPROTO_TCP, name) for name in told] == [seconds, seconds, 4]

    asyncio.run(scene())
