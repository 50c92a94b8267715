"""How a prompt is cut into chunks where its attention goes by different kernels for different numbers of rows.

On a CPU, flash attention computes a ubatch of at least a tile's rows of one sequence tile by tile, a shorter one row by
row, which costs several times as much: at 1,000 cells 63 rows took three times as long as 64. Without flash attention a
lone row costs the same, but has other low bits than the same row in a run of two or more.
"""

from __future__ import annotations

from collections.abc import Collection

CHEAP = 256
"""Up to so many cells before them rows cost about the same either way."""


def portion(n_pending: int, n_computed: int, n_chunk: int, *, tile: int) -> int:
    """Of a prompt's `n_pending` cells behind `n_computed`, those of the next chunk, which should be near `n_chunk`.

    Chunks are whole tiles. What does not divide comes first, where it is cheap, or else with the last chunk: then that
    is up to twice as long. At least 1.
    """
    if tile == 1:
        return min(n_pending, n_chunk)
    full = max(n_chunk // tile, 1) * tile
    if n_pending <= full:
        return n_pending
    rest = n_pending % full
    if rest and n_computed < CHEAP:
        return rest
    if 0 < rest < tile and n_pending < 2 * full:
        return n_pending
    return full


SHORTEST = 3
"""With room for so many, some run of any prompt of two or more cells obeys run_length."""


def run_length(n_pending: int, n_most: int, others: Collection[int]) -> int:
    """The longest run, of at most `n_most` of `n_pending` cells, by which nobody's row is computed alone; 0: none is.

    `others` are the lengths of the other runs in the batch. Of sequences side by side libllama computes as many rows of
    each as the shortest has, and then what is left of the longer ones: lengths must be equal or two apart. Nor may a
    lone row be left for the next batch.
    """
    for length in range(min(n_pending, n_most), 1, -1):
        if n_pending - length != 1 and all(abs(length - other) != 1 for other in others):
            return length
    return 0
