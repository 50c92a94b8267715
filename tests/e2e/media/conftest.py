"""One server for all tests of this folder: the demo model with a projector that sees colours and hears tones."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

from tests.e2e.conftest import DEMO
from tests.e2e.media.parts import png
from tests.e2e.server_process import ServerProcess

Start = Callable[[], ServerProcess]


class Gallery(http.server.BaseHTTPRequestHandler):
    """`/red/blue.png` is a red square on blue."""

    def do_GET(self) -> None:
        figure, background = self.path.removesuffix(".png").strip("/").split("/")
        file = png(figure, background)
        self.send_response(200)
        self.send_header("Content-Length", str(len(file)))
        self.end_headers()
        self.wfile.write(file)

    def log_message(self, format: str, *words: object) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="package")
def gallery() -> Iterator[str]:
    """The address (host and port) of a web server with pictures, from which the servers may fetch."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gallery) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"127.0.0.1:{web.server_port}"
        web.shutdown()
        thread.join()


@pytest.fixture(scope="package")
def slot_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the servers' slot files."""
    return tmp_path_factory.mktemp("slots")


@pytest.fixture(scope="package")
def start(model: Path, mmproj: Path, slot_files: Path, gallery: str, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Starts a server like the shared one."""

    def started() -> ServerProcess:
        words = ("-m", str(model), "-mm", str(mmproj), "-c", "4096", "-np", "4", "--metrics", "--slots", "--embeddings")
        more = ("--slot-save-path", str(slot_files), "--media-url", f"any,{gallery}")
        return ServerProcess(tmp_path_factory.mktemp("server") / "log", *DEMO, *words, *more)

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
