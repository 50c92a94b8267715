"""How the threads run that compute, and how they wait for each other: of libllama, and of libstable-diffusion."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadParams:
    """How the threads of one pool run. The defaults are what ggml does without a pool."""

    cpus: tuple[int, ...] = ()  # none: all that the process may use
    strict: bool = False  # each thread on a CPU of its own
    priority: int = 0  # -1 to 3, see threadpool.PRIORITIES
    poll: int = 50  # 0 to 100


SPINS = 1000
"""How often a waiting thread looks again before it sleeps, at the default of `poll`; GNU's own number is 300,000.

Whoever spins has a core that the thread waited for may need. Tokens/s of one stream, two threads on two cores: with the
machine to itself 100 with 300,000 and 99 with 1,000 (33 with 100); beside another such program 3 and 34.
"""


def spin_environment(plain: ThreadParams, batch: ThreadParams, environ: MutableMapping[str, str]) -> None:
    """Tell OpenMP how long to spin: it has one pool for everything, and ggml's `poll` is not passed on to it.

    To be called before the native library is loaded, for OpenMP reads it then. From 1 to 100 the spins grow from one to
    SPINS squared. What the user has told OpenMP himself stays, unless `poll` was given.
    """
    poll = max(plain.poll, batch.poll)
    default = ThreadParams().poll
    is_given = plain.poll != default or batch.poll != default
    if is_given or not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & environ.keys():
        environ["GOMP_SPINCOUNT"] = str(round(SPINS ** (poll / default)) if poll else 0)
    if is_given:
        environ["KMP_BLOCKTIME"] = str(4 * poll)  # milliseconds; 200 is LLVM's own
