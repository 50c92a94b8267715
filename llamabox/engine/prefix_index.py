"""Which resident cells a prompt can start from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llamabox.engine.history import History
from llamabox.engine.slot import Slot


@dataclass(frozen=True, slots=True)
class Match:
    """`n_cells` leading cells of a prompt are resident in `slot`."""

    slot: Slot | None = None
    n_cells: int = 0


def longest_prefix(slots: Iterable[Slot], prompt: History, limit: int) -> Match:
    """The slot that holds most of the prompt's beginning, at most `limit` cells; among equals a free slot wins.

    Only cells that equal what a fresh evaluation would hold count: after a context shift those before the gap.
    """
    best = Match()
    for slot in slots:
        n_cells = min(slot.resident.common_prefix(prompt), slot.n_exact, limit)
        n_cells = prompt.whole(n_cells)
        better = n_cells > best.n_cells
        tie = n_cells == best.n_cells > 0 and best.slot is not None and best.slot.is_busy and not slot.is_busy
        if better or tie:
            best = Match(slot, n_cells)
    return best
