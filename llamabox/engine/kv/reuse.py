"""The pieces of a prompt that can be moved together inside one slot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llamabox.engine.kv.history import History
from llamabox.engine.kv.slot import Slot

MAX_MOVES = 256
"""Most pieces of a prompt that are moved: each costs a walk over all cells of the memory."""


@dataclass(frozen=True, slots=True)
class Move:
    """One piece of a slot: `n_cells` cells that a prompt goes on with once the `n_gap` cells before are dropped."""

    n_gap: int
    n_cells: int


@dataclass(frozen=True, slots=True)
class Reuse:
    """The beginning of a prompt, `n_cells` cells, as `slot` has it: its first `n_prefix` cells, then `moves`."""

    slot: Slot
    n_prefix: int
    moves: tuple[Move, ...]
    n_cells: int


def usable_prefix(slot: Slot, prompt: History, limit: int) -> int:
    """Number of leading cells of `prompt`, up to `limit`, that `slot` holds as a fresh evaluation would make them."""
    return prompt.whole(min(slot.resident.common_prefix(prompt), slot.n_exact, limit))


def best_reuse(slots: Iterable[Slot], prompt: History, limit: int, n_least: int) -> Reuse | None:
    """The pieces of `prompt`, which is text, worth moving together in one of `slots`, or None."""
    usable = [slot for slot in slots if slot.resident.is_text and slot.resident.lora == prompt.lora]
    found = [find_reuse(slot, prompt, limit, n_least) for slot in usable]
    return max((reuse for reuse in found if reuse.moves), key=lambda reuse: reuse.n_cells, default=None)


def find_reuse(slot: Slot, prompt: History, limit: int, n_least: int) -> Reuse:
    """The pieces of `slot` that `prompt` can take: text of `n_least` cells or more each, up to `limit` cells in all.

    As in llama.cpp, the prompt may lack pieces that the slot holds, but not the other way round. Cells behind a dropped
    piece attended to it: they are not what a fresh evaluation would make.
    """
    resident, wanted = slot.resident.as_text(), prompt.as_text()
    n_prefix = usable_prefix(slot, prompt, limit)
    moves: list[Move] = []
    n_cells = end = n_prefix
    while n_cells + n_least <= limit and len(moves) < MAX_MOVES:
        found = resident.find(wanted[n_cells : n_cells + n_least], end)
        if found < 0:
            break
        n_run = min(slot.resident.common_run(found, prompt, n_cells), limit - n_cells)
        moves.append(Move(found - end, n_run))
        n_cells += n_run
        end = found + n_run
    return Reuse(slot, n_prefix, tuple(moves), n_cells)
