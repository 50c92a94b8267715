"""ggml's threadpools: which CPUs compute a context's decodes, how urgently, and how threads wait for work."""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llamabox.bindings import backend
from llamabox.bindings.ffi import Native
from llamabox.bindings.spin import KMP_BLOCKTIME, SPINS, is_told, spin_beside_others
from llamabox.errors import ContextError

if TYPE_CHECKING:
    from llamabox.bindings.context import Context

logger = logging.getLogger(__name__)

PRIORITIES = {-1: "LOW", 0: "NORMAL", 1: "MEDIUM", 2: "HIGH", 3: "REALTIME"}
REAL_TIME = {1: 40, 2: 80, 3: 90}
"""SCHED_FIFO's priority that ggml asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadParams:
    """How the threads of one pool run. The defaults are what ggml does without a pool."""

    cpus: tuple[int, ...] = ()  # none: all that the process may use
    strict: bool = False  # each thread on a CPU of its own
    priority: int = 0  # -1 to 3, see PRIORITIES
    poll: int = 50  # 0 to 100


def spin_environment(
    plain: ThreadParams, batch: ThreadParams, environ: MutableMapping[str, str], *, crowded: bool
) -> None:
    """Tell OpenMP how long to spin: it has one pool for everything, and ggml does not pass `poll` on to it.

    Call this before the native library is loaded, because OpenMP reads it then. From 1 to 100 the spins grow from 1 to
    SPINS squared. The user's own settings for OpenMP stay, unless `poll` was given.

    `crowded`: the threads of a step are more than the processors. Else they spin as long where an encoder has threads.
    """
    poll = max(plain.poll, batch.poll)
    default = ThreadParams().poll
    is_given = plain.poll != default or batch.poll != default
    if is_given or not is_told(environ):
        environ["GOMP_SPINCOUNT"] = str(round(SPINS ** (poll / default)) if poll else 0)
        if not crowded:
            spin_beside_others(environ)
    if is_given:
        environ["KMP_BLOCKTIME"] = str(KMP_BLOCKTIME * poll // default)


class ThreadPools:
    """Owns the pools of one context; detached and freed by `close()`, which is idempotent, before the context's.

    Made on the context's thread, which becomes one of each pool: its own affinity and priority change with theirs.
    """

    def __init__(self, context: Context, plain: ThreadParams, batch: ThreadParams) -> None:
        """`plain` computes single tokens, `batch` prompts. Raises ContextError where ggml has no such thing."""
        native = context.native
        self._context = context
        # OpenMP would read beyond the end of a pool that is smaller than the number of threads of a decode.
        n_threads = native.lib.llama_n_threads(context.handle)
        n_threads_batch = native.lib.llama_n_threads_batch(context.handle)
        pointer = "struct ggml_threadpool *"
        make = backend.proc_address(
            native, "CPU", "ggml_threadpool_new", f"{pointer}(*)(struct ggml_threadpool_params *)"
        )
        self._free = backend.proc_address(native, "CPU", "ggml_threadpool_free", f"void (*)({pointer})")
        if make is None or self._free is None:
            raise ContextError("the CPU backend has no threadpools: leave out -C, -Cr, --cpu-strict, --prio and --poll")
        plain, batch = _settled(plain, batch)
        _warn_of_crowds(plain, n_threads, "-C")
        _warn_of_crowds(batch, n_threads_batch, "-Cb")
        both = plain == batch and n_threads == n_threads_batch
        self._pools: list[Any] = []
        try:
            if not both:
                self._pools.append(make(c_params(native, batch, n_threads_batch, paused=False)))
            # Paused where there are two: it wakes with its first decode, and until then need not spin beside the other.
            self._pools.append(make(c_params(native, plain, n_threads, paused=not both)))
            if native.ffi.NULL in self._pools:
                raise ContextError("ggml cannot make its threads")
        except ContextError:
            self._free_all()
            raise
        self._contexts: list[Context] = []
        self.attach(context)
        if n_threads == 1:
            _apply_here(plain)

    def attach(self, context: Context) -> None:
        """Lend the pools to another context of the same thread, with as many threads."""
        self._context.native.lib.llama_attach_threadpool(context.handle, self._pools[-1], self._pools[0])
        self._contexts.append(context)

    def close(self) -> None:
        """Must come before that of the contexts."""
        if self._pools:
            for context in self._contexts:
                self._context.native.lib.llama_detach_threadpool(context.handle)
            self._free_all()

    def _free_all(self) -> None:
        pools, self._pools = self._pools, []
        for pool in pools:
            if pool != self._context.native.ffi.NULL:
                self._free(pool)


def _settled(plain: ThreadParams, batch: ThreadParams) -> tuple[ThreadParams, ThreadParams]:
    """The two settings as far as ggml can follow them.

    Where one of them says on which CPUs, or that each thread has its own, the other says it too: OpenMP lends the same
    threads to both, and they would stay where they were put last. Real-time priorities need a right; without it ggml
    would complain on stderr at each decode.
    """
    if plain.cpus or batch.cpus or plain.strict or batch.strict:
        every = tuple(sorted(_affinity()))
        plain = replace(plain, cpus=plain.cpus or every)
        batch = replace(batch, cpus=batch.cpus or every)
    for priority in sorted({plain.priority, batch.priority} & REAL_TIME.keys()):
        if not _may_have(priority):
            logger.warning("--prio %d needs CAP_SYS_NICE or a limit of real-time priority: it has no effect", priority)
            plain = replace(plain, priority=0) if plain.priority == priority else plain
            batch = replace(batch, priority=0) if batch.priority == priority else batch
    return plain, batch


def _warn_of_crowds(params: ThreadParams, n_threads: int, flag: str) -> None:
    """Threads that wait for each other by spinning, on one CPU, take a hundred times as long."""
    if params.cpus and n_threads > len(params.cpus):
        logger.warning("%s leaves %d CPUs to %d threads, which will be very slow", flag, len(params.cpus), n_threads)


def c_params(native: Native, params: ThreadParams, n_threads: int, *, paused: bool) -> Any:
    """The ggml_threadpool_params * that a pool is made from. Raises ContextError for a CPU that ggml cannot name."""
    c = native.ffi.new("struct ggml_threadpool_params *")
    c[0] = native.lib.ggml_threadpool_params_default(n_threads)
    for cpu in params.cpus:
        if cpu >= len(c.cpumask):
            raise ContextError(f"ggml knows CPUs up to {len(c.cpumask) - 1}, not {cpu}")
        c.cpumask[cpu] = True
    c.strict_cpu = params.strict
    c.prio = getattr(native.lib, f"GGML_SCHED_PRIO_{PRIORITIES[params.priority]}")
    c.poll = params.poll
    c.paused = paused
    return c


def _apply_here(params: ThreadParams) -> None:
    """Place the calling thread as told: a single thread is no OpenMP team, and ggml places teams only."""
    if not hasattr(os, "sched_setaffinity"):
        return
    if params.cpus:
        os.sched_setaffinity(0, params.cpus[:1] if params.strict else params.cpus)
    if params.priority in REAL_TIME:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REAL_TIME[params.priority]))
    elif params.priority < 0:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _may_have(priority: int) -> bool:
    """Whether this thread may become a real-time one; it tries, and goes back."""
    if not hasattr(os, "sched_setscheduler"):
        return True
    before, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REAL_TIME[priority]))
    except PermissionError:
        return False
    os.sched_setscheduler(0, before, parameters)
    return True
