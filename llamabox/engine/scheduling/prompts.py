"""Which prompts a step computes, and how much of them."""

from __future__ import annotations

from collections.abc import Collection

from llamabox.engine.scheduling.company import LEAST_REST, Company
from llamabox.engine.scheduling.overtaking import is_overdue, note_overtaking, urgency
from llamabox.engine.scheduling.pacing import Pacing
from llamabox.engine.sequence import Sequence

MAX_TOLD = 128
"""Rows of prompts that tell their logits in one step. With 150,000 tokens in the vocabulary these take 77 MB."""

FEW_TOKENS = 8
"""Tokens of a text at its beginning, for which it waits longer where others that came with it have none yet."""

ALIKE = 2
"""Prompts are alike where one computes at most so many times as many cells as the other."""

FEW_CELLS = 32
"""Cells for which even the shortest prompt may wait that is computed beside them."""


class Prompts:
    """Shares out a step's room for prompts. Owned by the engine's thread; it has no state.

    Short prompts go first, and none waits for ever (scheduling/overtaking).
    """

    def __init__(self, company: Company, pacing: Pacing, *, cont_batching: bool) -> None:
        self._company = company
        self._pacing = pacing
        self._cont_batching = cont_batching

    def chunk(
        self,
        ready: list[Sequence],
        next_due: float | None,
        now: float,
        spent: float = 0.0,
        apart: Collection[Sequence] = (),
    ) -> int:
        """Number of prompt tokens that this step may carry. `next_due`: when the first is due of those left out.

        `spent`: seconds that streams wait for copies before it. `apart`: sequences that decode in a step of their own.
        """
        n_chunk = self._company.n_chunk
        streams = [sequence for sequence in ready if not sequence.is_prefilling]
        if not streams:
            if next_due is None:
                return n_chunk
            # A stream whose speed limit keeps it out of this step wants the next one in time.
            return min(n_chunk, self._pacing.chunk(1, idle=next_due - now))
        if not self._cont_batching:
            return 0
        prompts = list(filter(has_prompt, ready))
        # Who brings a picture has waited for it to be decoded and encoded: the growth is for texts that come together.
        n_texts = sum(sequence.cells.is_text for sequence in prompts)
        n_streams = max(1, sum(stream not in apart for stream in streams))
        usual = self._pacing.chunk(n_streams, n_texts, -spent, is_media=n_texts < len(prompts))
        n_together = sum(sequence.n_pending for sequence in prompts if _came_together(sequence, streams))
        if n_together > usual:
            usual = max(usual, min(n_together, self._pacing.chunk(n_streams, n_texts, -spent, at_first=True)))
        return min(n_chunk, usual)

    def share(
        self,
        prompts: list[Sequence],
        room: int,
        chunk: int,
        beside: dict[Sequence, int],
        *,
        spares_last: bool = False,
    ) -> dict[Sequence, int]:
        """The cells of each prompt in this step: about `chunk` in all, `room` at most.

        `beside` are the cells of the other sequences in it. With `spares_last` the last cell of a prompt with media,
        whose row has logits, is left to the next step of what decodes: to streams it costs less there.
        """
        if not prompts or not chunk:
            return {}
        candidates = sorted(prompts, key=urgency)
        fair = budget = min(room, chunk)
        n_behind = sum(sequence.n_pending for sequence in candidates)
        n_told = MAX_TOLD
        lengths = set(beside.values())
        parts: dict[Sequence, int] = {}
        for sequence in candidates:
            if budget <= 0:
                break
            n_behind -= sequence.n_pending
            # A prompt that was overtaken too often goes first, but leaves the others half of the step.
            share = max((budget + 1) // 2, budget - n_behind) if is_overdue(sequence) else budget
            most = min(room, n_told) if sequence.tells_prompt else room
            # A picture cuts its prompt into short stretches: each would be such a rest, and streams feel all of them.
            least_rest = LEAST_REST if sequence.cells.is_text else 0
            n_cells = self._company.chunk_length(
                sequence.n_stretch, sequence.n_computed, min(share, most), most, lengths, least_rest
            )
            if spares_last and not sequence.cells.is_text and 2 < n_cells == sequence.n_pending:
                n_cells -= 1
            if parts and not self._joins(sequence, n_cells, parts, budget, fair):
                continue
            if sequence.tells_prompt:
                n_told -= n_cells
            if n_cells:
                parts[sequence] = n_cells
                lengths.add(n_cells)
            room -= n_cells
            budget -= n_cells
        note_overtaking(candidates, parts, fair)
        return parts

    def _joins(self, sequence: Sequence, n_cells: int, parts: dict[Sequence, int], budget: int, fair: int) -> bool:
        """Whether `n_cells` of a prompt go into one step with `parts` of others. `budget` is left of the `fair` chunk.

        Where they have passes of their own, those others would only wait for many. A few that are cut off a prompt are
        not worth a pass, nor any that are cut off one which the next step may compute as a whole.
        """
        if self._company.mixes:
            return True
        if n_cells > max(FEW_CELLS, ALIKE * min(parts.values())):
            return False
        return n_cells == sequence.n_stretch or (sequence.n_stretch > fair and 2 * budget >= fair)


def has_prompt(sequence: Sequence) -> bool:
    """Whether the next stretch of its prompt takes more than the one row that everybody gets."""
    return sequence.is_prefilling and (sequence.n_stretch > 1 or sequence.is_media)


def _came_together(prompt: Sequence, streams: list[Sequence]) -> bool:
    """Whether the `streams` have but begun, and had no token when this prompt came, which is like theirs.

    Such a stream was lucky to go first. The first token of the one is worth waiting for with the second of the other.
    """
    return all(
        stream.n_generated <= FEW_TOKENS
        and prompt.arrived <= stream.first_token
        and _n_to_compute(prompt) <= ALIKE * _n_to_compute(stream)
        for stream in streams
    )


def _n_to_compute(sequence: Sequence) -> int:
    """Cells of its prompt that were not resident."""
    return sequence.n_prompt - sequence.n_cached
