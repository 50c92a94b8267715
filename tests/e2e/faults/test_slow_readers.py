"""Clients that are slow on purpose: they are dropped within their limits, hold little meanwhile, and delay nobody."""

from __future__ import annotations

import contextlib
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes

from tests.e2e.conftest import DEMO
from tests.e2e.raw_client import RawClient
from tests.e2e.server_process import ServerProcess
from tests.e2e.survival import n_files, resident, unharmed, wait_for

LIMIT = 2
"""Seconds of silence that the server allows here, on a connection and within a request."""

INNOCENT = {"prompt": "A short history of bread:", "n_predict": 40, "temperature": 0, "ignore_eos": True, "id_slot": 0}
MEMORY_SLACK = 64 << 20


@pytest.fixture(scope="module")
def shared(serve: Callable[..., ServerProcess]) -> ServerProcess:
    limits = ("--timeout", str(LIMIT), "--conn-keepalive", str(LIMIT))
    return serve("-c", "8192", "-np", "2", *limits)


@pytest.fixture
def server(shared: ServerProcess) -> Iterator[ServerProcess]:
    yield from unharmed(shared)


def innocent_text(server: ServerProcess) -> str:
    return "".join(event["content"] for event in server.stream("/completion", INNOCENT))


CUT_OFF = "cut_off=the client is too slow: "
"""In the line of its request, whichever limit a client meets first: that depends on the machine."""


@pytest.mark.parametrize("n_probs", [1, 256])
def test_a_stream_that_nobody_reads(server: ServerProcess, n_probs: int) -> None:
    """256 likeliest tokens at each place are 24 kilobytes in JSON: on a fast machine more of them wait than may before
    the socket has been stuck for long.
    """
    told = server.log.count(CUT_OFF)
    alone = innocent_text(server)
    before = resident(server.process.pid)
    body = {"prompt": "x", "n_predict": 4000, "ignore_eos": True, "n_probs": n_probs, "stream": True, "id_slot": 1}
    with RawClient(server.port, receive_buffer=4096) as client:
        client.post("/completion", body)
        client.read_until(b"data: ")
        assert innocent_text(server) == alone
        if n_probs > 1:  # enough to fill every buffer on the way
            wait_for(lambda: server.busy_slots() == 0, "its slot is freed")
            assert resident(server.process.pid) < before + MEMORY_SLACK
            assert b'"stop":true' not in client.rest()
            wait_for(lambda: server.log.count(CUT_OFF) == told + 1, "the log says once that it was cut off, and why")


def drip(pieces: dict[RawClient, bytes]) -> list[RawClient]:
    """Sends each client its piece; returns those that took it."""
    alive = []
    for client, piece in pieces.items():
        try:
            client.sock.sendall(piece)
            alive.append(client)
        except OSError:
            client.leave(reset=True)
    return alive


POST = b"POST /completion HTTP/1.1\r\nHost: localhost\r\n"
DRIPS = {
    "request line": (b"", b"P"),
    "headers": (POST, b"A: b\r\n"),
    "body": (POST + b"Content-Length: 9000\r\n\r\n", b"{"),
    "chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n"),
}
"""The beginning of a request, and what of it comes again and again."""


def test_requests_that_drip_in(server: ServerProcess) -> None:
    """Each byte comes in time, the whole never: it is the whole that has a limit."""
    alone = innocent_text(server)
    files = n_files(server.process.pid)
    with ExitStack() as stack:
        kinds = {stack.enter_context(RawClient(server.port)): kind for kind in [*DRIPS] * 25}
        alive = drip({client: b"".join(DRIPS[kind]) for client, kind in kinds.items()})
        assert innocent_text(server) == alone

        def all_dropped() -> bool:
            nonlocal alive
            alive = drip({client: DRIPS[kinds[client]][1] for client in alive})
            return not alive

        wait_for(all_dropped, "the server ends them")
    wait_for(lambda: n_files(server.process.pid) <= files, "their descriptors are free")


def test_thousands_that_say_nothing(server: ServerProcess) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_idle = 2000 if hard == resource.RLIM_INFINITY else min(2000, hard - 200)
    if soft < n_idle + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (n_idle + 200, hard))
    alone = innocent_text(server)
    files, memory = n_files(server.process.pid), resident(server.process.pid)
    with ExitStack() as stack:
        clients = []
        for _ in range(n_idle):
            clients.append(stack.enter_context(RawClient(server.port)))
        assert innocent_text(server) == alone
        for client in clients:
            assert client.rest() == b""
    wait_for(lambda: n_files(server.process.pid) <= files, "their descriptors are free")
    assert resident(server.process.pid) < memory + MEMORY_SLACK


def test_more_connections_than_descriptors(model: Path, tmp_path: Path) -> None:
    """Who came first is served on; those over the limit wait or are turned away; afterwards all is as before."""
    arguments = (*DEMO, "-m", str(model), "-c", "512", "--conn-keepalive", str(LIMIT), "--slots")
    with ServerProcess(tmp_path / "log", *arguments, before=("prlimit", "--nofile=200:200")) as server:
        body = {"prompt": "Once upon a time", "n_predict": 40, "ignore_eos": True, "stream": True}
        with RawClient(server.port) as first, ExitStack() as stack:
            first.post("/completion", body)
            first.read_until(b"data: ")
            for _ in range(400):
                stack.enter_context(RawClient(server.port))
            first.read_until(b'"stop":true')
        wait_for(lambda: server.health() == 200, "descriptors are free again")
        wait_for(lambda: n_files(server.process.pid) < 100, "their descriptors are free")
        assert len(server.log) < 20_000, "the log was flooded"
        server.ok("/completion", {"prompt": "Hi", "n_predict": 2})


def test_a_window_that_is_never_opened(server: ServerProcess) -> None:
    """HTTP/2: the socket is read all the time, the streams' windows stay shut."""
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    body = json.dumps({"prompt": "x", "n_predict": 4000, "ignore_eos": True, "stream": True, "n_probs": 20}).encode()
    before = resident(server.process.pid)
    with RawClient(server.port) as raw:
        for _ in range(3):
            stream = client.get_next_available_stream_id()
            head = {":method": "POST", ":path": "/completion", ":scheme": "http", ":authority": "localhost"}
            client.send_headers(stream, list(head.items()))
            client.send_data(stream, body, end_stream=True)
        raw.sock.sendall(client.data_to_send())
        wait_for(lambda: server.busy_slots() == 2, "both slots work for it")
        wait_for(lambda: server.busy_slots() == 0, "the slots are freed")
        wait_for(lambda: server.log.count(f"{CUT_OFF}its window stayed shut") == 3, "the log says it of each stream")
        assert resident(server.process.pid) < before + MEMORY_SLACK
        while piece := raw.sock.recv(65536):  # until the server ends the connection, now that it is idle
            client.receive_data(piece)
            raw.sock.sendall(client.data_to_send())


def test_answers_that_pile_up_unread(server: ServerProcess) -> None:
    """Pipelined questions: the server stops reading them instead of hoarding the answers."""
    before = resident(server.process.pid)
    with RawClient(server.port, receive_buffer=4096) as client:
        client.sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            for _ in range(1000):
                client.sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        assert resident(server.process.pid) < before + MEMORY_SLACK
        client.leave(reset=True)


def test_a_plain_answer_of_too_many_log_probabilities(tiny_text: Path, tmp_path: Path) -> None:
    """It is refused when too much has come together."""
    with ServerProcess(tmp_path / "log", "-m", str(tiny_text), "-c", "8192", "-np", "2") as server:
        body = {"prompt": "x", "n_predict": 3000, "ignore_eos": True, "n_probs": 256}
        server.ok("/completion", {**body, "n_predict": 2})
        before = resident(server.process.pid)
        response = server.post("/completion", {**body, "n": 2})
        assert response.status_code == 400
        assert "n_probs" in response.json()["error"]["message"]
        assert resident(server.process.pid) < before + 4 * MEMORY_SLACK
        assert len(server.ok("/completion", {**body, "n_predict": 2})["completion_probabilities"]) == 2
