"""`llamabox health`: a container's question, put to a server that listens somewhere else than usual."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llamabox import health
from llamabox.clients.state import WorkerState
from llamabox.options.commandline import compose, parse
from llamabox.server.listening.binding import bind_sockets
from llamabox.server.listening.listener import Listener
from llamabox.server.listening.tls import tls_context
from tests.server.fake_client import FakeTextClient
from tests.server.harness import text_app
from tests.server.listening.test_tls import certify


@contextlib.asynccontextmanager
async def served(client: FakeTextClient, *options: str) -> AsyncIterator[list[str]]:
    """A server with these options on a free port; gives the options that say so."""
    _, listen, hosted = compose(parse(options, {}))
    sockets = bind_sockets(listen.hosts, 0)
    listener = Listener(text_app(client, listen, hosted), listen, sockets, tls_context(listen))
    await listener.start()
    ports = [sock.getsockname()[1] for sock in sockets if sock.family != socket.AF_UNIX]
    try:
        yield [*options, *(f"--port={port}" for port in ports)]
    finally:
        await listener.close(grace=0.5)


def asked(options: list[str], environ: dict[str, str] | None = None, client: FakeTextClient | None = None) -> int:
    async def scene() -> int:
        async with served(client or FakeTextClient(), *options) as given:
            return await asyncio.to_thread(health.main, given, environ or {})

    return asyncio.run(scene())


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--host", "0.0.0.0", "--api-prefix", "/a/b"],
        ["--host", "::1", "--api-key", "secret"],
        ["--host", "::"],
        ["--host", "127.0.0.1,::1"],
    ],
    ids=" ".join,
)
def test_a_server_that_is_well_is_found_by_its_own_options(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):  # never asked
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert asked(options) == 0
    assert capsys.readouterr().out.startswith("ok: ")


def test_by_a_unix_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(["--host", str(tmp_path / "llamabox.sock")]) == 0
    assert 'llamabox.sock port 8080 answers 200: {"status":"ok"}' in capsys.readouterr().out


def test_by_tls_with_a_certificate_that_nobody_signed(tmp_path: Path) -> None:
    files = certify(tmp_path)
    assert asked(["--ssl-key-file", str(files.ssl_key_file), "--ssl-cert-file", str(files.ssl_cert_file)]) == 0


def test_a_server_that_is_not_well(capsys: pytest.CaptureFixture[str]) -> None:
    client = FakeTextClient()
    client.state = WorkerState.RESTARTING
    client.trouble = "the model is gone"
    assert asked([], client=client) == 1
    assert "answers 503: " in capsys.readouterr().out


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    [sock] = bind_sockets(["127.0.0.1"], 0)
    port = sock.getsockname()[1]
    sock.close()
    assert health.main([f"--port={port}"], {}) == 1
    assert capsys.readouterr().out == f"error: nobody answers at 127.0.0.1 port {port}: Connection refused\n"
    assert health.main([], {"LLAMA_ARG_PORT": str(port)}) == 1
    assert f"port {port}: " in capsys.readouterr().out


def test_wrong_options_are_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main(["--port", "none"], {}) == 1
    assert capsys.readouterr().out.startswith("error: --port")


def test_a_server_that_lends_its_device(capsys: pytest.CaptureFixture[str]) -> None:
    [sock] = bind_sockets(["127.0.0.1"], 0)
    with sock:
        port = sock.getsockname()[1]
        assert health.main(["--rpc-server-host", "127.0.0.1", "--rpc-server-port", str(port)], {}) == 0
    assert health.main(["--rpc-server-port", str(port)], {}) == 1


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["/opt/llamabox/bin/python", "/opt/llamabox/bin/llamabox", "--port", "9000"], ["--port", "9000"]),
        (["/usr/bin/python3", "-m", "llamabox", "-m", "my llamabox.gguf"], ["-m", "my llamabox.gguf"]),
        (["/sbin/docker-init", "--", "llamabox", "--host", "::"], ["--host", "::"]),
        (["/sbin/init"], []),
    ],
    ids=str,
)
def test_the_options_of_process_1_are_those_of_the_server(tmp_path: Path, words: list[str], options: list[str]) -> None:
    path = tmp_path / "cmdline"
    path.write_text("".join(f"{word}\0" for word in words))
    assert health.options_of(path) == options
    assert health.options_of(tmp_path / "missing") == []
