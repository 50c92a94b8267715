"""The pieces of a prompt that can be moved together inside one slot."""

from __future__ import annotations

from dataclasses import dataclass

from llamabox.engine.kv.history import History
from llamabox.engine.kv.slot import Slot

MAX_RUNS = 256
"""Moving one costs a walk over all cells of the memory: a prompt that is cut into more is better computed."""


@dataclass(frozen=True, slots=True)
class Run:
    """`n_cells` cells of a slot that a prompt goes on with, once the `n_gap` cells before them are dropped."""

    n_gap: int
    n_cells: int


@dataclass(frozen=True, slots=True)
class Reuse:
    """The first `n_prefix` cells of `slot` and then `runs` are the beginning of a prompt, `n_cells` in all."""

    slot: Slot
    n_prefix: int
    runs: tuple[Run, ...]
    n_cells: int


def usable_prefix(slot: Slot, prompt: History, limit: int) -> int:
    """Leading cells of `prompt` that `slot` holds, at most `limit`, as a fresh evaluation would make them."""
    return prompt.whole(min(slot.resident.common_prefix(prompt), slot.n_exact, limit))


def find_reuse(slot: Slot, prompt: History, limit: int, n_least: int) -> Reuse:
    """What `prompt` can take from `slot`, at most `limit` cells: text only, runs of `n_least` cells or more.

    As llama.cpp does: of what the slot holds, pieces may be missing in the prompt, but not the other
    way round. Cells behind a dropped piece attended to it: they are not what a fresh evaluation would make.
    """
    resident, wanted = slot.resident.as_text(), prompt.as_text()
    n_prefix = usable_prefix(slot, prompt, limit)
    runs: list[Run] = []
    n_cells = end = n_prefix
    while n_cells + n_least <= limit and len(runs) < MAX_RUNS:
        found = resident.find(wanted[n_cells : n_cells + n_least], end)
        if found < 0:
            break
        n_run = min(slot.resident.common_run(found, prompt, n_cells), limit - n_cells)
        runs.append(Run(found - end, n_run))
        n_cells += n_run
        end = found + n_run
    return Reuse(slot, n_prefix, tuple(runs), n_cells)
