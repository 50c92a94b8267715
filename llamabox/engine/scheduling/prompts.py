"""Which prompts a step computes, and how much of them."""

from __future__ import annotations

from collections.abc import Collection

from llamabox.engine.scheduling.company import LEAST_REST, Company, Kind, joined
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

MOST_LEFT_OUT = 32
"""Steps for which prompts wait for a chunk while others ride, or compute pictures: eight pictures take as many."""

FEW_LEFT_OUT = 4
"""The same steps where that goes on for longer."""

MANY = 8
"""So many prompts ride at once, however few cells a chunk has: a row more costs a fraction of a chunk's cell."""


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


class Riders:
    """Prompts of which one cell each is computed with the rows of streams: while pictures come, and where rows are
    steady. Owned by the engine's thread.

    A chunk is a pass over the weights of its own between two tokens of the streams, as long as theirs. Where several
    prompts wait in slots beside those of the streams, as many cells in the streams' own pass cost them a fraction of
    that, and the prompts are computed no later. Those that have computed their pictures wait for the others' pictures,
    so that they ride together.
    """

    def __init__(self) -> None:
        self._n_left_out = 0  # steps for which prompts waited that did not ride, less those that had a chunk
        self._was_lone = False  # the last batch was of rows that decode

    def are_enough(
        self, prompts: Collection[Sequence], media: Collection[Sequence], rows: Collection[Sequence], chunk: int
    ) -> bool:
        """Whether those ride that can, or could once their `media` are computed, and no chunk of so many cells goes."""
        if not prompts or all(sequence.is_prefilling for sequence in rows):
            return False
        slot_ids = joined(_slot_ids(rows), _slot_ids([*prompts, *media]))
        # The step with a chunk takes twice as long.
        return 2 * len(slot_ids) >= chunk > 0 and self._n_left_out < MOST_LEFT_OUT

    def join(self, prompts: Collection[Sequence], rows: Collection[Sequence], chunk: int, turn: Kind) -> list[Sequence]:
        """Those of the `prompts` that go into a batch of this kind with the `rows`, where they are enough.

        None behind another pass that streams have just waited for.
        """
        if turn is not Kind.LONE or not self._was_lone:
            return []
        waiting = {one.slot.slot_id: one for one in prompts if one.slot is not None and not one.tells_prompt}
        return [waiting[slot_id] for slot_id in joined(_slot_ids(rows), waiting)][: max(chunk, MANY)]

    def note(self, turn: Kind, n_waiting: int, *, rides: bool) -> None:
        """A batch of this kind was planned, and so many prompts wait that have no cell in it; `rides`: for others."""
        self._was_lone = turn is Kind.LONE
        if turn is Kind.RUN or not n_waiting:
            self._n_left_out = max(0, self._n_left_out - FEW_LEFT_OUT)
        elif rides:
            self._n_left_out += 1


def _slot_ids(sequences: Collection[Sequence]) -> list[int]:
    return [one.slot.slot_id for one in sequences if one.slot is not None]


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
