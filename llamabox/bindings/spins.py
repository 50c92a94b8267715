"""How long OpenMP's threads spin before they sleep. It has one pool for everything and reads this when it is loaded."""

from __future__ import annotations

from collections.abc import MutableMapping

SPINS = 1000
"""How often a waiting thread looks again before it sleeps, at the default of `poll`; GNU's own number is 300,000.

Whoever spins has a core that the thread waited for may need. Tokens/s of one stream, two threads on two cores: with the
machine to itself 100 with 300,000 and 99 with 1,000 (33 with 100); beside another such program 3 and 34.
"""


def set_spins(environ: MutableMapping[str, str], n_spins: int = SPINS, *, always: bool = False) -> None:
    """For libraries that are loaded later. What the user has told OpenMP himself stays, unless `always`."""
    if always or not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & environ.keys():
        environ["GOMP_SPINCOUNT"] = str(n_spins)
