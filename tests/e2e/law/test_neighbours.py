"""The dearest lawful requests: whoever streams beside them, or asks for /health, hardly notices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.law.neighbours import CASES, arguments, watched
from tests.e2e.server_process import ServerProcess
from tests.e2e.survival import unharmed

PATIENCE = 150.0
"""Milliseconds that a stream may rest, and /health may take, however quick both are alone."""

FACTOR = 2.0

TRIES = 10
"""What a request does it does each time; what other programs of the machine do passes, if not always soon."""

MEMORY_MIB = 640.0
"""That one case may take in either process: the budget of all bodies, an eighth for small ones, and some slack."""


@pytest.fixture(scope="module")
def shared(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("neighbours")
    with ServerProcess(folder / "log", *arguments(model, folder)) as server:
        yield server


@pytest.fixture
def server(shared: ServerProcess) -> Iterator[ServerProcess]:
    yield from unharmed(shared)


@pytest.mark.parametrize("name", CASES)
def test_a_neighbour_hardly_notices(server: ServerProcess, name: str) -> None:
    for _ in range(TRIES):
        quiet, seen, statuses = watched(server, name)
        assert 500 not in statuses
        is_calm = seen.gap <= max(PATIENCE, FACTOR * quiet.gap) and seen.health <= max(PATIENCE, FACTOR * quiet.health)
        if is_calm and seen.server_mib <= MEMORY_MIB and seen.worker_mib <= MEMORY_MIB:
            return
        server.wait_idle(60)
    raise AssertionError(f"{name}: {quiet} became {seen} in each of {TRIES} tries; statuses {set(statuses)}")
