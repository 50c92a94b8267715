"""Real servers over the demo model, one per command line, shared by the tests of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamabox.demo import ensure_demo_model
from tests.e2e.server_process import ServerProcess

DEMO = ("--chat-template", "chatml")
"""As the demo is served: the model's own template adds a system prompt that leads so small a model astray."""


@pytest.fixture(scope="session")
def model() -> Path:
    """SmolLM2-135M-Instruct, fetched once."""
    return ensure_demo_model(progress=False)


@pytest.fixture(scope="module")
def serve(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers, one per distinct command line, and stops them when the test module is over."""
    servers: dict[tuple[str, ...], ServerProcess] = {}

    def start(*arguments: str) -> ServerProcess:
        running = servers.get(arguments)
        if running is None or running.process.poll() is not None:
            log = tmp_path_factory.mktemp("server") / "log"
            servers[arguments] = running = ServerProcess(log, *DEMO, "-m", str(model), "--slots", *arguments)
        return running

    yield start
    codes = [server.stop() for server in servers.values()]
    assert all(code == 0 for code in codes), "a server did not stop cleanly"
