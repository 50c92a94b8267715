"""RPC servers as their users run them: ours, and the one that llama.cpp's sources bring, here and on other machines."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamabox.demo import ensure_demo_model
from native.build import sources
from native.build.cache import cache_folder
from native.build.libraries import compilers
from tests.lending.hosts import PORT, Hosts
from tests.lending.server_process import RpcServer

NATIVE = Path(__file__).parents[2] / "llamabox" / "_native"


@pytest.fixture
def lend(tmp_path: Path) -> Iterator[Callable[..., RpcServer]]:
    """Starts an RPC server with these words; it is let in from this machine, and ends with the test."""
    servers: list[RpcServer] = []

    def start(*words: str) -> RpcServer:
        servers.append(RpcServer(tmp_path / f"rpc{len(servers)}.log", *words))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def ggml_rpc_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """llama.cpp's own `ggml-rpc-server`, of the pinned sources and with the libraries that llamabox uses."""
    source = sources.read_versions()
    folder = tmp_path_factory.mktemp("ggml-rpc-server")
    tree = folder / "source"
    sources.unpack(sources.fetch(source, cache_folder() / "downloads"), source, tree)
    code, header = tree / "tools" / "rpc" / "rpc-server.cpp", tree / "ggml" / "include" / "ggml-rpc.h"
    program = folder / "ggml-rpc-server"
    libraries = (f"-L{NATIVE}", "-lggml", "-lggml-base", f"-Wl,-rpath,{NATIVE}", f"-Wl,-rpath-link,{NATIVE}")
    compiler = compilers()["C++"].split(": ")[0]
    command = (
        compiler,
        "-std=c++17",
        "-w",
        f"-I{header.parent}",
        str(code),
        *libraries,
        "-pthread",
        "-o",
        str(program),
    )
    subprocess.run(command, check=True, env={**os.environ, "LC_ALL": "C"})
    return program


@pytest.fixture(scope="session")
def model() -> Path:
    """SmolLM2-135M-Instruct, fetched once."""
    return ensure_demo_model(progress=False)


@pytest.fixture
def hosts(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """Two machines beside this one, a wire to each; they run ggml's server, or as a parameter says llamabox."""
    if getattr(request, "param", "ggml") == "llamabox":
        words = ("--rpc-server-host", "0.0.0.0", "--rpc-server-port", str(PORT), "--rpc-server-threads", "1")
        server: tuple[str, ...] = (sys.executable, "-m", "llamabox", *words)
    else:
        program = request.getfixturevalue("ggml_rpc_server")
        server = (str(program), "-H", "0.0.0.0", "-p", str(PORT), "-t", "1")
    with Hosts(tmp_path, server, n=2) as made:
        yield made
