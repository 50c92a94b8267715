"""A run of everything has two workers, measures afterwards by itself, and ends as any run of pytest does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]

TEST = """
import os
from pathlib import Path

def test(benchmark):
    worker = os.environ.get("PYTEST_XDIST_WORKER", "none")
    with open("order", "a") as file:
        file.write(f"{Path(__file__).parent.name} {worker}\\n")
    benchmark.pedantic(int)
    assert "fails" not in __file__
    assert benchmark.enabled == (worker == "none"), "nothing is measured beside others"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\ntestpaths = ["tests"]\n')
    return tmp_path


ALONE = ("benchmarks/test_a.py", "e2e/command/test_swap.py", "e2e/law/test_neighbours.py")


def run(project: Path, files: tuple[str, ...], *words: str) -> tuple[int, str, list[list[str]]]:
    """The exit status, the closing line, and folder and worker of each test in the order in which they ran."""
    for file in files:
        path = project / "tests" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TEST)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.suite.two_at_a_time", "--import-mode=importlib", *words],
        cwd=project,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    ran = [line.split() for line in (project / "order").read_text().splitlines()]
    return done.returncode, done.stdout.splitlines()[-1].strip("= "), ran


def test_what_measures_runs_last_and_alone(project: Path) -> None:
    code, closing, ran = run(project, (*ALONE, "engine/test_b.py", "e2e/images/test_c.py"))
    assert (code, closing.split(" in ")[0]) == (0, "5 passed")
    shared = dict(ran[:2])
    assert (set(shared), set(shared.values())) == ({"engine", "images"}, {"gw0", "gw1"})
    assert ran[2:] == [["benchmarks", "none"], ["command", "none"], ["law", "none"]]


def test_failures_of_both_halves_count(project: Path) -> None:
    files = (*ALONE, "benchmarks/test_fails.py", "engine/test_b.py", "engine/test_fails.py")
    code, closing, _ = run(project, files)
    assert (code, closing.split(" in ")[0]) == (1, "2 failed, 4 passed")


@pytest.mark.parametrize("words", [("-n", "0"), ("-s",), ("tests",)], ids=" ".join)
def test_named_files_and_all_that_is_asked_for_otherwise_run_in_one_process(
    project: Path, words: tuple[str, ...]
) -> None:
    code, closing, ran = run(project, ("benchmarks/test_a.py", "engine/test_b.py"), *words)
    assert (code, closing.split(" in ")[0]) == (0, "2 passed")
    assert ran == [["benchmarks", "none"], ["engine", "none"]]


@given(st.none())
@settings(max_examples=1)
def test_no_example_fails_because_the_machine_is_busy(nothing: None) -> None:
    time.sleep(0.25)
