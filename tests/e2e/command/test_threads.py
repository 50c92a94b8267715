"""Where the worker's threads really run, how urgently, and how they wait: as the system tells it of each of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamabox.bindings.prefix import locate
from llamabox.bindings.threadpool import _may_have
from tests.e2e.server_process import ServerProcess

Serve = Callable[..., ServerProcess]

CPUS = sorted(os.sched_getaffinity(0))
FIRST, LAST = CPUS[0], CPUS[-1]
SLEEPING = ("--poll", "0")  # two threads that spin on one CPU would take for ever
PLAIN = ("-t", "2")
ALONE = ("-t", "1", "-Cr", f"{LAST}-{LAST}", "--poll", "100")  # one thread waits for nobody
STRICT = ("-t", "2", "--cpu-strict", "1", "--poll-batch", "60")
ASLEEP = ("-t", "2", "-Cb", f"{1 << LAST:x}", *SLEEPING)
POLICIES = {-1: os.SCHED_BATCH, 1: os.SCHED_FIFO, 3: os.SCHED_FIFO}


@pytest.fixture(scope="module")
def model(tiny_text: Path) -> Path:
    """It is all one what it says."""
    return tiny_text


@pytest.fixture(scope="module")
def serve(serve: Serve) -> Iterator[Serve]:
    """Servers whose log begins with what GNU's OpenMP took from its environment when it was loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_DISPLAY_ENV", "verbose")
        yield serve


def mask(cpu: int) -> str:
    return f"{1 << cpu:x}"


def threads(server: ServerProcess) -> list[tuple[int, frozenset[int]]]:
    """Scheduling policy and allowed CPUs of each thread of the worker."""
    found = []
    for task in Path(f"/proc/{server.worker_pid()}/task").iterdir():
        thread = int(task.name)
        found.append((os.sched_getscheduler(thread), frozenset(os.sched_getaffinity(thread))))
    return found


def confined(server: ServerProcess) -> list[frozenset[int]]:
    """The CPUs of those threads that may not go everywhere."""
    return [cpus for _, cpus in threads(server) if cpus != frozenset(CPUS)]


def complete(server: ServerProcess, n_predict: int) -> None:
    server.ok("/completion", {"prompt": "Once upon a time", "n_predict": n_predict, "cache_prompt": False})


@pytest.mark.skipif(len(CPUS) < 2, reason="a mask of the only CPU is no mask")
def test_masks_of_decodes_and_of_prompts(serve: Serve) -> None:
    words = ("-t", "2", "-tb", "2", "-C", mask(FIRST), "-Crb", f"{LAST}-{LAST}")
    server = serve(*words, *SLEEPING)
    complete(server, 3)
    assert confined(server) == [frozenset({FIRST})] * 2, "the last thing computed was a single token"
    complete(server, 1)
    assert confined(server) == [frozenset({LAST})] * 2, "the last thing computed was a prompt"


@pytest.mark.skipif(len(CPUS) < 2, reason="a mask of the only CPU is no mask")
def test_a_single_thread_is_bound_too(serve: Serve) -> None:
    server = serve(*ALONE)
    complete(server, 3)
    assert confined(server) == [frozenset({LAST})]


@pytest.mark.skipif(len(CPUS) < 2, reason="a mask of the only CPU is no mask")
def test_a_mask_for_prompts_leaves_decodes_all_cpus(serve: Serve) -> None:
    server = serve(*ASLEEP)
    complete(server, 1)
    assert confined(server) == [frozenset({LAST})] * 2
    complete(server, 3)
    assert confined(server) == []


@pytest.mark.skipif(len(CPUS) < 2, reason="a mask of the only CPU is no mask")
def test_strict_gives_each_thread_a_cpu_of_its_own(serve: Serve) -> None:
    server = serve(*STRICT)
    complete(server, 3)
    assert sorted(confined(server), key=min) == [frozenset({cpu}) for cpu in CPUS[:2]]


@pytest.mark.parametrize(("priority", "n_threads"), [(-1, 1), (-1, 2), (1, 2), (3, 1)])
def test_priorities(serve: Serve, priority: int, n_threads: int) -> None:
    server = serve("--prio", str(priority), "-t", str(n_threads), *SLEEPING)
    complete(server, 3)
    policies = [policy for policy, _ in threads(server) if policy != os.SCHED_OTHER]
    if priority > 0 and not _may_have(priority):
        assert (policies, server.log.count("needs CAP_SYS_NICE")) == ([], 1)
    else:
        assert policies == [POLICIES[priority]] * n_threads


def test_without_these_options_no_thread_is_touched(serve: Serve) -> None:
    server = serve(*PLAIN)
    complete(server, 3)
    assert set(threads(server)) == {(os.SCHED_OTHER, frozenset(CPUS))}


@pytest.mark.parametrize(
    ("words", "count"),
    [(PLAIN, 1000), (ALONE, 1_000_000), (ASLEEP, 0), (STRICT, 3_981)],
    ids=["by default", "--poll 100", "--poll 0", "--poll-batch 60"],
)
def test_how_long_openmp_spins(serve: Serve, words: tuple[str, ...], count: int) -> None:
    is_gnu = b"libgomp" in locate().joinpath("libggml-cpu.so").read_bytes()
    log = serve(*words).log
    assert (f"GOMP_SPINCOUNT = '{count}'" in log) == is_gnu
    is_active = is_gnu and int(words[1]) <= len(CPUS)  # then they spin as long beside an encoder's threads
    assert ("OMP_WAIT_POLICY = 'ACTIVE'" in log) == is_active
