"""The dearest lawful requests: whoever streams beside them, or asks for /health, hardly notices."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.law.neighbours import CASES, arguments, watched
from tests.e2e.law.processors import Use
from tests.e2e.server_process import ServerProcess
from tests.e2e.survival import unharmed

PATIENCE = 150.0
"""Milliseconds that a stream may rest, and /health may take, however quick both are alone.

Where other programs have a part of the processors, all of the server's takes longer by as much: so may these.
"""

FACTOR = 2.0

TRIES = 10
"""What a request does it does each time; what other programs of the machine do passes, if not always soon."""

MOST_OTHERS = 0.75
"""Part of the processors that others may have had, as far as that is an excuse."""

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
        patience = PATIENCE / (1.0 - min(seen.others, MOST_OTHERS))
        is_calm = seen.gap <= max(patience, FACTOR * quiet.gap) and seen.health <= max(patience, FACTOR * quiet.health)
        if is_calm and seen.server_mib <= MEMORY_MIB and seen.worker_mib <= MEMORY_MIB:
            return
        server.wait_idle(60)
    raise AssertionError(f"{name}: {quiet} became {seen} in each of {TRIES} tries; statuses {set(statuses)}")


def test_what_our_own_processes_take_is_no_excuse() -> None:
    """A loop of ours, in a process of its own, takes a processor; by that no part of any is another's."""
    busy = "import time; end = time.process_time() + 2\nwhile time.process_time() < end: pass"
    before = Use.now()
    with subprocess.Popen([sys.executable, "-c", busy]) as loop:
        time.sleep(0.5)
        amid = Use.now()
        loop.wait()
    after = Use.now()
    assert amid.ours > before.ours
    assert after.ours - before.ours >= 2
    assert after.everybody - before.everybody >= after.ours - before.ours - 0.1
    for earlier, later in ((before, amid), (amid, after), (before, after)):
        assert 0.0 <= later.others_since(earlier) <= 1.0
    made_up = Use(before.at + 1.0, before.everybody + 1.5, before.ours + 1.0)
    assert made_up.others_since(before) == pytest.approx(0.5 / len(os.sched_getaffinity(0)))
