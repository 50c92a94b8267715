"""How libllama cuts a batch: each pass goes over all weights once."""

from __future__ import annotations

from collections.abc import Sequence as Seq

Length = tuple[int, int]
"""A sequence id, and its rows."""


def passes(lengths: Seq[Length], n_ubatch: int, *, is_unified: bool) -> list[int]:
    """Rows of each pass over a batch with these runs, which come in the order of their sequences.

    In a unified pool all rows are alike. Else (llama_batch_allocr::split_equal) a pass has equally many rows of each of
    its sequences, whose ids follow one another, and what is left of longer runs comes later.
    """
    if is_unified:
        n_rows = sum(n for _, n in lengths)
        return [n_ubatch] * (n_rows // n_ubatch) + [n_rows % n_ubatch] * (n_rows % n_ubatch > 0)
    found: list[int] = []
    left = list(lengths)
    while left:
        first = left[0][0]
        n_beside = 1
        while n_beside < len(left) and n_beside < n_ubatch and left[n_beside][0] == first + n_beside:
            n_beside += 1
        beside = left[:n_beside]
        n_rows = min(min(n for _, n in beside), n_ubatch // n_beside)
        found.append(n_beside * n_rows)
        left = [(seq_id, n - n_rows) for seq_id, n in beside if n > n_rows] + left[n_beside:]
    return found
