"""Short prompts go before long ones, but none waits for ever."""

from __future__ import annotations

from llamabox.engine.sequence import Sequence

MAX_OVERTAKEN = 8
"""Steps in which shorter prompts may be served before a longer one that came earlier."""


def is_overdue(sequence: Sequence) -> bool:
    return sequence.n_overtaken >= MAX_OVERTAKEN


def urgency(sequence: Sequence) -> tuple[bool, float, float]:
    """Sort key: prompts that were overtaken too often by arrival, then the others by what is left of them."""
    if is_overdue(sequence):
        return (False, sequence.arrived, 0.0)
    return (True, float(sequence.n_pending), sequence.arrived)


def note_overtaking(candidates: list[Sequence], served: dict[Sequence, int], fair: int) -> None:
    """Count the step for each prompt that got less than half a `fair` chunk while a later one was served.

    Getting the rest of a chunk does not count as being served: short prompts that leave one token of each chunk over
    would hold a long one up for ever.
    """
    latest = max((sequence.arrived for sequence in served), default=0.0)
    for sequence in candidates:
        n_fair = min(sequence.n_pending, fair)
        if 2 * served.get(sequence, 0) < n_fair and sequence.arrived < latest:
            sequence.n_overtaken += 1
