"""One server for all tests of this folder: the demo model with a projector that sees colours and hears tones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

from tests.e2e.conftest import DEMO
from tests.e2e.server_process import ServerProcess

Start = Callable[[], ServerProcess]


@pytest.fixture(scope="package")
def slot_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the servers' slot files."""
    return tmp_path_factory.mktemp("slots")


@pytest.fixture(scope="package")
def start(model: Path, mmproj: Path, slot_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Starts a server like the shared one."""

    def started() -> ServerProcess:
        words = ("-m", str(model), "-mm", str(mmproj), "-c", "4096", "-np", "4", "--metrics", "--slots", "--embeddings")
        log = tmp_path_factory.mktemp("server") / "log"
        return ServerProcess(log, *DEMO, *words, "--slot-save-path", str(slot_files), "--media-url", "any")

    return started


@pytest.fixture(scope="package")
def server(start: Start) -> Iterator[ServerProcess]:
    """The shared server."""
    running = start()
    yield running
    assert running.stop() == 0, "the server did not stop cleanly"


@pytest.fixture(scope="package")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, unmodified."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client
