"""The whole suite runs two files at a time: most of its tests wait for one process, and leave a core idle.

`python -m pytest` without paths shares its files out to two workers of pytest-xdist, what takes longest first. What
measures the machine runs afterwards, by itself, in the process that was called. Files that are named run in that
process, too, and so does everything with `-n 0`, `-s` or `--pdb`.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

N_WORKERS = 2

ALONE = ("tests/benchmarks", "tests/e2e/command/test_swap.py", "tests/e2e/law/test_neighbours.py")
"""What measures how fast a piece is, or how long a request holds its neighbours up; and what compiles on all cores."""

LONGEST = (
    "tests/e2e/images/",
    "tests/e2e/faults/",
    "tests/e2e/law/",
    "tests/e2e/command/",
    "tests/e2e/texts/",
    "tests/lending/",
    "tests/e2e/",
    "tests/workers/",
    "tests/bindings/",
    "tests/imaging/",
)
"""Where the longest files are, in this order: beside one that came last the other worker would have nothing to do."""

BENCHMARK_SECONDS = "0.2"
"""How long a piece that takes microseconds is measured in a run of everything. By itself: a second."""

SHARED = pytest.StashKey[bool]()
"""Whether the files are shared out to workers, all but those that run alone."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Ask pytest-xdist for two workers where the command says nothing else."""
    if hasattr(config, "workerinput") or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    option = config.option
    wished = getattr(option, "numprocesses", 0)  # 0: without pytest-xdist (-p no:xdist)
    if wished in (None, N_WORKERS) and not (option.collectonly or option.usepdb or option.capture == "no"):
        option.numprocesses = N_WORKERS
        option.tx = ["popen"] * N_WORKERS
        option.dist = "loadfile"
        option.loadscopereorder = False  # the order is ours
        if hasattr(option, "benchmark_max_time"):
            option.benchmark_max_time = type(option.benchmark_max_time)(BENCHMARK_SECONDS)
        config.stash[SHARED] = True


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker what it is part of."""
    node.workerinput["is_shared"] = node.config.stash.get(SHARED, False)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Workers leave out what runs alone."""
    is_left_out = _is_shared(config) and any(collection_path == config.rootpath / path for path in ALONE)
    return True if is_left_out else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers take files in the order in which their tests are collected."""
    if _is_shared(config):
        items.sort(key=_rank)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Run what runs alone once the workers are done."""
    done = yield
    if session.config.stash.get(SHARED, False):
        n_shared = session.testscollected
        _measure_again(session.config)
        session.perform_collect([str(session.config.rootpath / path) for path in ALONE])
        session.testscollected += n_shared
        _run(session)
    return done


def _is_shared(config: pytest.Config) -> bool:
    workerinput: dict[str, object] = getattr(config, "workerinput", {})
    return bool(workerinput.get("is_shared"))


def _rank(item: pytest.Item) -> int:
    return next((i for i, path in enumerate(LONGEST) if item.nodeid.startswith(path)), len(LONGEST))


def _measure_again(config: pytest.Config) -> None:
    """pytest-benchmark measures nothing beside workers, of which there are none any more."""
    benchmarks = getattr(config, "_benchmarksession", None)
    if benchmarks is not None and benchmarks.xdist_warning:
        benchmarks.xdist_warning = benchmarks.disabled = False


def _run(session: pytest.Session) -> None:
    """Run the collected tests, as pytest itself does."""
    for item, following in pairwise([*session.items, None]):
        assert item is not None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
