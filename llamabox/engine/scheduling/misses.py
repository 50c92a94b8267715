"""Why no more of a prompt was found in the cache: a line for the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from llamabox.engine.kv.slot import Slot
from llamabox.engine.seams import Runner
from llamabox.engine.sequence import Sequence

logger = logging.getLogger(__name__)


def explainer(slots: Iterable[Slot], runner: Runner) -> Callable[[Sequence], None] | None:
    """What writes a line to the log for a sequence that is about to get a slot; None where nobody reads it."""
    if not logger.isEnabledFor(logging.DEBUG):
        return None

    def tell(sequence: Sequence) -> None:
        why = explain(sequence, slots, lambda token: runner.piece(token, True))
        logger.debug("%s %s", sequence.request_id, why)

    return tell


def explain(sequence: Sequence, slots: Iterable[Slot], piece: Callable[[int], bytes]) -> str:
    """Say where the prompt of a sequence that is about to get a slot differs from the slot that holds most of it.

    `piece` gives the bytes of a token.
    """
    if not sequence.params.cache_prompt:
        return "nothing is reused: cache_prompt is false"
    if not sequence.may_reuse:
        return "nothing is reused: the log-probability of each prompt token is asked for"
    full = [slot for slot in slots if len(slot.resident)]
    if not full:
        return "nothing is cached: all slots are empty"
    alike = [slot for slot in full if slot.resident.lora == sequence.cells.lora]
    if not alike:
        return "nothing can be reused: all slots were computed with other LoRA adapters"
    nearest = max(alike, key=lambda slot: min(slot.resident.common_prefix(sequence.cells), slot.n_exact))
    common = nearest.resident.common_prefix(sequence.cells)
    found = f"slot {nearest.slot_id} holds {common} of {sequence.n_prompt} prompt tokens"
    if common > nearest.n_exact:
        return f"{found}, but those behind the first {nearest.n_exact} come from a context shift"
    if common in (len(nearest.resident), sequence.n_prompt):
        return f"{found}, and none that differs"
    held, asked = (_shown(cells.key(common), piece) for cells in (nearest.resident, sequence.cells))
    return f"{found}: token {common} is {asked}, there it is {held}"


def _shown(token: int, piece: Callable[[int], bytes]) -> str:
    return "media" if token < 0 else f"{token} {piece(token).decode('utf-8', 'replace')!r}"
