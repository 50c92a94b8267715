"""How a prompt is cut into chunks where attention is computed in tiles.

On a CPU, flash attention computes a ubatch of at least a tile's rows of one sequence tile by tile, a shorter one row by
row, which costs several times as much: at 1,000 cells 63 rows took three times as long as 64.
"""

from __future__ import annotations

CHEAP = 256
"""Up to so many cells before them rows cost about the same either way."""


def portion(n_pending: int, n_computed: int, n_chunk: int, *, tile: int, lead: int) -> int:
    """Of a prompt's `n_pending` cells behind `n_computed`, those of the next chunk, which should be near `n_chunk`.

    Chunks are whole tiles and `lead` rows, which are computed together with other sequences' rows. What does not divide
    comes first, where it is cheap, or else with the last chunk: then that is up to twice as long. At least 1.
    """
    if tile == 1:
        return min(n_pending, n_chunk)
    full = max(n_chunk // tile, 1) * tile + lead
    if n_pending <= full:
        return n_pending
    rest = n_pending % full
    if rest and n_computed < CHEAP:
        return rest
    if 0 < rest < tile + lead and n_pending < 2 * full:
        return n_pending
    return full
