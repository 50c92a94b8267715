"""How long OpenMP's threads look for work before they sleep. It reads this as its library is loaded."""

from __future__ import annotations

from collections.abc import MutableMapping

SPINS = 1000
"""How often a waiting thread looks again before it sleeps; GNU's own number is 300,000.

A thread that spins holds a core, which the thread that it waits for may need. Tokens/s of one stream, two threads on
two cores: with the machine to itself 100 with 300,000 spins and 99 with 1,000 (33 with 100); beside another such
program 3 and 34. A picture beside another such program: 8.1 s and 7.5.
"""


KMP_BLOCKTIME = 200
"""Milliseconds for which threads of LLVM's OpenMP wait by default. It would be for ever with OMP_WAIT_POLICY."""


def is_told(environ: MutableMapping[str, str]) -> bool:
    """Whether the user has told OpenMP how long."""
    return bool({"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & environ.keys())


def spin_briefly(environ: MutableMapping[str, str]) -> None:
    """Have threads look SPINS times, unless the user has told OpenMP something else."""
    if not is_told(environ):
        environ["GOMP_SPINCOUNT"] = str(SPINS)


def spin_beside_others(environ: MutableMapping[str, str]) -> None:
    """Have threads look as often where other threads of the process compute, too; at most 1,000 times.

    GNU's OpenMP counts the threads of all that ever computed. Where they are more than the processors, each looks 100
    times, unless it is to wait actively. So once an encoder had computed, with threads of its own, those of every later
    step slept at each operation: a step of four texts took 11.5 ms instead of 6.8.
    """
    environ.setdefault("OMP_WAIT_POLICY", "ACTIVE")
    environ.setdefault("KMP_BLOCKTIME", str(KMP_BLOCKTIME))
