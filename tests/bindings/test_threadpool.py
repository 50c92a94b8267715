"""What ggml's threadpools are told, read back from C, and what OpenMP is told in their place."""

from __future__ import annotations

import os

import pytest

from llamabox.bindings import threadpool
from llamabox.bindings.context import Context
from llamabox.bindings.ffi import Native
from llamabox.bindings.threadpool import ThreadParams, ThreadPools, spin_environment
from llamabox.errors import ContextError


def test_what_a_pool_is_told(native: Native) -> None:
    params = ThreadParams(cpus=(0, 3, 511), strict=True, priority=-1, poll=7)
    c = threadpool.c_params(native, params, 5, paused=True)
    assert [cpu for cpu in range(len(c.cpumask)) if c.cpumask[cpu]] == [0, 3, 511]
    assert (c.n_threads, c.strict_cpu, c.poll, c.paused) == (5, True, 7, True)
    assert c.prio == native.lib.GGML_SCHED_PRIO_LOW
    for priority, name in threadpool.PRIORITIES.items():
        c = threadpool.c_params(native, ThreadParams(priority=priority), 1, paused=False)
        assert c.prio == getattr(native.lib, f"GGML_SCHED_PRIO_{name}")
    with pytest.raises(ContextError, match="CPUs up to 511, not 512"):
        threadpool.c_params(native, ThreadParams(cpus=(512,)), 1, paused=False)


def test_the_defaults_are_ggmls(native: Native) -> None:
    c = threadpool.c_params(native, ThreadParams(), 2, paused=False)
    theirs = native.lib.ggml_threadpool_params_default(2)
    assert (c.poll, c.prio, c.strict_cpu, any(c.cpumask)) == (theirs.poll, theirs.prio, theirs.strict_cpu, False)
    assert not any(theirs.cpumask)


def test_a_context_computes_with_pools_and_after_them(context: Context) -> None:
    before = os.sched_getaffinity(0)
    pools = ThreadPools(context, ThreadParams(poll=0), ThreadParams(poll=1))
    context.warm_up()
    pools.close()
    pools.close()
    context.warm_up()
    assert os.sched_getaffinity(0) == before


def test_a_backend_without_threadpools_is_said(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threadpool.backend, "proc_address", lambda *_: None)
    with pytest.raises(ContextError, match="no threadpools: leave out -C"):
        ThreadPools(context, ThreadParams(poll=0), ThreadParams())


@pytest.mark.parametrize(
    ("plain", "batch", "already", "told"),
    [(50, 50, {}, {"GOMP_SPINCOUNT": "1000", "OMP_WAIT_POLICY": "ACTIVE", "KMP_BLOCKTIME": "200"}),
     (50, 50, {"KMP_BLOCKTIME": "7"}, {"GOMP_SPINCOUNT": "1000", "OMP_WAIT_POLICY": "ACTIVE"}),
     (50, 50, {"GOMP_SPINCOUNT": "7"}, {}),
     (50, 50, {"OMP_WAIT_POLICY": "PASSIVE"}, {}),
     (0, 0, {"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "ACTIVE", "KMP_BLOCKTIME": "0"}),
     (0, 0, {"OMP_WAIT_POLICY": "PASSIVE"}, {"GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}),
     (0, 100, {}, {"GOMP_SPINCOUNT": "1000000", "OMP_WAIT_POLICY": "ACTIVE", "KMP_BLOCKTIME": "400"}),
     (10, 50, {}, {"GOMP_SPINCOUNT": "1000", "OMP_WAIT_POLICY": "ACTIVE", "KMP_BLOCKTIME": "200"})],
)  # fmt: skip
def test_how_long_openmp_is_to_spin(plain: int, batch: int, already: dict[str, str], told: dict[str, str]) -> None:
    environ = dict(already)
    spin_environment(ThreadParams(poll=plain), ThreadParams(poll=batch), environ, crowded=False)
    assert environ == already | told


def test_threads_that_have_no_processor_each_are_not_to_wait_actively() -> None:
    """OpenMP then lets them sleep sooner: who spins would hold the processor that another one needs."""
    environ: dict[str, str] = {}
    spin_environment(ThreadParams(), ThreadParams(), environ, crowded=True)
    assert environ == {"GOMP_SPINCOUNT": "1000"}
