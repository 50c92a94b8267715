"""What the next llama_decode computes: rows that decode, prompts in chunks, or both, under one token budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from llamabox.engine.batch import Batch
from llamabox.engine.kv.kv_cache import KVCache
from llamabox.engine.request import LoraSet
from llamabox.engine.scheduling.admission import Admission
from llamabox.engine.scheduling.pacing import Pacing
from llamabox.engine.scheduling.portions import SHORTEST, portion, run_length
from llamabox.engine.scheduling.turns import Turns
from llamabox.engine.sequence import Sequence

MAX_FORCED = 64
"""Cells of one sequence, of those that a grammar forces, in one step: more would be felt by the others."""

MAX_OVERTAKEN = 8
"""Steps in which shorter prompts may be served before a longer one that came earlier."""


@dataclass(slots=True)
class Share:
    """One sequence's part of a step: its cells up to `stop` are computed; `row` yields its logits, -1 for none."""

    sequence: Sequence
    stop: int
    row: int


@dataclass(slots=True)
class Work:
    """One step: the batch, whose it is, and who could not go on and why."""

    batch: Batch = field(default_factory=Batch)
    shares: list[Share] = field(default_factory=list)
    admitted: list[Sequence] = field(default_factory=list)
    stuck: list[Sequence] = field(default_factory=list)
    next_due: float | None = None  # when the first of those is due that keep to a speed limit and sat this step out
    n_decode: int = 0  # rows that cost what decoding rows cost
    n_forced: int = 0  # cells that grammars force
    n_prefill: int = 0


Part = tuple[Sequence, int]
"""A sequence and how many of its cells a step computes."""


class Scheduler:
    """Decides; computes nothing. Owned by the engine's thread.

    `n_batch` bounds the rows of a step, `n_chunk` the prompt tokens of a step in which nobody decodes; `tile` and
    `mixes`: see Runner. Without `cont_batching` prompts wait until nobody decodes (-nocb).

    Where rows do not mix, a step has either lone rows or runs, and the two kinds take turns. What a sequence's run is
    does not depend on others: all of a prompt, so that two cells of it are computed where one would do; and what a
    grammar forces, whole.
    """

    def __init__(
        self,
        cache: KVCache,
        pacing: Pacing,
        *,
        n_batch: int,
        n_chunk: int,
        tile: int,
        mixes: bool,
        adds_bos: bool,
        cont_batching: bool,
        slot_similarity: float,
        on_start: Callable[[Sequence], None] | None = None,
    ) -> None:
        self._cache = cache
        self._pacing = pacing
        self._n_batch = n_batch
        self._n_chunk = min(n_chunk, n_batch)
        self._tile = tile if 2 * (tile + 1) <= n_batch else 1
        self._mixes = mixes
        self._adds_bos = adds_bos
        self._cont_batching = cont_batching
        self._admission = Admission(cache, slot_similarity, 1 if mixes else 2, on_start)
        self._turns = Turns()
        self._runs_next: set[LoraSet] = set()  # of these, lone rows had the last step while runs waited
        self.running: list[Sequence] = []

    @property
    def n_waiting(self) -> int:
        return len(self._admission)

    @property
    def is_idle(self) -> bool:
        return not self.running and not self.n_waiting

    def add(self, sequence: Sequence) -> None:
        self._admission.add(sequence)

    def remove(self, sequence: Sequence, *, forget: bool = False) -> None:
        """Take out a sequence that ended. Its slot is free at once; with `forget` the slot's cells are dropped too."""
        if sequence.slot is None:
            self._admission.remove(sequence)
        else:
            self.running.remove(sequence)
            if forget:
                self._cache.clear(sequence.slot)
            self._cache.release(sequence.slot)
        sequence.end()

    def schedule(self, now: float) -> Work:
        """Admit who can be admitted and plan one step. Whose speed limit says that it is not due yet sits it out."""
        n_streams = sum(not sequence.is_prefilling for sequence in self.running)
        self._cache.copy_time.begin_step(self._pacing.pause(n_streams))
        work = Work(admitted=self._admission.admit(self.running))
        due = [(sequence.due(now), sequence) for sequence in self.running]
        work.next_due = min((time for time, _ in due if time > now), default=None)
        ready = [sequence for time, sequence in due if time <= now]
        mine = self._whose_turn(ready, work.batch)
        rows = self._rows(mine, work)
        prompts = [sequence for sequence in mine if _has_prompt(sequence)]
        chunk = self._chunk(ready, work.next_due, now) if prompts else 0
        plan = self._mixed if self._mixes else self._unmixed
        parts = plan(work, rows, prompts, chunk)
        if len(mine) < len(ready) and any(_has_prompt(sequence) for sequence in ready):
            self._turns.end()
        self._fill(work, parts)
        return work

    def _rows(self, mine: list[Sequence], work: Work) -> list[Part]:
        """Those of `mine` that decode or are at the end of their prompt, with a cell each and what a grammar forces."""
        able: list[Sequence] = []
        for sequence in mine:
            if not _has_prompt(sequence):
                (able if self._make_room(sequence) else work.stuck).append(sequence)
        return [(sequence, 1 if sequence.is_prefilling else self._forced(sequence)) for sequence in able]

    def _forced(self, sequence: Sequence) -> int:
        """Cells of a decoding sequence up to the context's end: what lies behind it waits for the shift, as ever."""
        return min(sequence.n_pending, self._cache.n_ctx - 1 - sequence.n_computed, MAX_FORCED)

    def _mixed(self, work: Work, rows: list[Part], prompts: list[Sequence], chunk: int) -> list[Part]:
        """All of it in one step."""
        room = self._n_batch - len(rows)
        parts: list[Part] = []
        for sequence, n_cells in rows:
            parts.append((sequence, min(n_cells, room + 1)))
            room -= parts[-1][1] - 1
        work.n_decode = sum(not sequence.is_prefilling for sequence, _ in parts)
        work.n_forced = _n_cells(parts) - len(parts)
        prefill = self._prefill(prompts, room, chunk)
        work.n_prefill = _n_cells(prefill)
        return parts + prefill

    def _unmixed(self, work: Work, rows: list[Part], prompts: list[Sequence], chunk: int) -> list[Part]:
        """All lone rows, or else runs."""
        lone = [part for part in rows if part[1] == 1]
        runs = [part for part in rows if part[1] > 1]
        runs_wait = bool(runs or (prompts and chunk))
        if lone and not (runs_wait and work.batch.lora in self._runs_next):
            if runs_wait:
                self._runs_next.add(work.batch.lora)
            work.n_decode = len(lone)
            return lone
        self._runs_next.discard(work.batch.lora)
        parts: list[Part] = []
        room = self._n_chunk
        for sequence, n_cells in sorted(runs, key=_n_generated):  # who had to stand back was left behind
            length = run_length(n_cells, room, _lengths(parts)) or (0 if parts else min(n_cells, room))
            parts += [(sequence, length)] if length else []
            room -= length
        work.n_forced = _n_cells(parts)
        prefill = self._prefill(prompts, room, chunk, parts)
        work.n_prefill = _n_cells(prefill)
        return parts + prefill

    def _whose_turn(self, ready: list[Sequence], batch: Batch) -> list[Sequence]:
        """Those of the `ready` sequences whose LoRA set has its turn, which becomes the batch's."""
        able = ready
        if not self._cont_batching and any(not sequence.is_prefilling for sequence in ready):
            able = [sequence for sequence in ready if not _has_prompt(sequence)]
        if not able:
            return []
        batch.lora = self._turns.next(sequence.params.lora for sequence in able)
        return [sequence for sequence in ready if sequence.params.lora == batch.lora]

    def _chunk(self, ready: list[Sequence], next_due: float | None, now: float) -> int:
        """Prompt tokens of this step."""
        # Those of other LoRA sets, whose turn comes after this step, feel its length as well.
        n_decode = sum(not sequence.is_prefilling for sequence in ready)
        if n_decode:
            n_prompts = sum(_has_prompt(sequence) for sequence in ready)
            return min(self._n_chunk, self._pacing.chunk(n_decode, n_prompts)) if self._cont_batching else 0
        if next_due is not None:
            # A text that sits this step out wants its next one in time.
            return min(self._n_chunk, self._pacing.chunk(1, idle=next_due - now))
        return self._n_chunk

    def _make_room(self, sequence: Sequence) -> bool:
        """Shift the context where the next cell would reach its end. False where there is no room to do it."""
        assert sequence.slot is not None
        n_ctx = self._cache.n_ctx
        if sequence.n_computed + 1 < n_ctx:  # always so for a prompt, which is shorter than the context
            return True
        n_keep = sequence.n_keep(self._adds_bos, n_ctx)
        n_left = sequence.n_computed - n_keep
        n_discard = min(sequence.params.n_discard or n_left // 2, n_left)
        dropped = self._cache.shift(sequence.slot, n_keep, n_discard)
        if not dropped:
            return False
        sequence.cells.discard(dropped.start, dropped.stop)
        sequence.truncated = True
        return True

    def _prefill(self, prompts: list[Sequence], room: int, chunk: int, runs: Seq[Part] = ()) -> list[Part]:
        """Prompt chunks of this step, where they do not mix beside `runs`."""
        if not prompts or not chunk:
            return []
        candidates = sorted(prompts, key=_urgency)
        fair = budget = min(room, chunk)
        n_behind = sum(sequence.n_pending for sequence in candidates)
        parts: list[Part] = []
        for sequence in candidates:
            if budget <= 0:
                break
            n_behind -= sequence.n_pending
            # Who was overtaken too often goes first, but leaves the others half of the step.
            share = max((budget + 1) // 2, budget - n_behind) if _is_overdue(sequence) else budget
            n_cells = self._portion(sequence, share, room, [*runs, *parts])
            if n_cells:
                parts.append((sequence, n_cells))
            room -= n_cells
            budget -= n_cells
        _note_overtaking(candidates, dict(parts), fair)
        return parts

    def _portion(self, sequence: Sequence, budget: int, room: int, others: list[Part]) -> int:
        """Cells of a prompt for this step; more than the budget where only whole tiles are worth computing."""
        n_cells = min(portion(sequence.n_pending, sequence.n_computed, budget, tile=self._tile), room)
        if self._mixes:
            return n_cells
        n_most = min(max(n_cells, SHORTEST), room)
        return run_length(sequence.n_pending, n_most, _lengths(others)) or (0 if others else n_cells)

    def _fill(self, work: Work, parts: list[Part]) -> None:
        # Rows in the order of their slots: separate KV streams are computed together only in consecutive order.
        parts.sort(key=lambda part: _slot_id(part[0]))
        for sequence, n_cells in parts:
            start = sequence.n_computed
            stop = start + n_cells
            wants_output = stop == len(sequence.cells) and sequence.params.n_predict != 0
            row = work.batch.add(
                _slot_id(sequence),
                sequence.cells.keys(start, stop),
                sequence.cells.position(start),
                wants_output=wants_output,
            )
            work.shares.append(Share(sequence, stop, row if wants_output else -1))


def _has_prompt(sequence: Sequence) -> bool:
    """Its prompt takes more than the one row that everybody gets."""
    return sequence.is_prefilling and sequence.n_pending > 1


def _slot_id(sequence: Sequence) -> int:
    assert sequence.slot is not None
    return sequence.slot.slot_id


def _n_generated(part: Part) -> int:
    return part[0].n_generated


def _n_cells(parts: Iterable[Part]) -> int:
    return sum(n_cells for _, n_cells in parts)


def _lengths(parts: Iterable[Part]) -> set[int]:
    return {n_cells for _, n_cells in parts}


def _is_overdue(sequence: Sequence) -> bool:
    return sequence.n_overtaken >= MAX_OVERTAKEN


def _urgency(sequence: Sequence) -> tuple[bool, float, float]:
    """Overtaken too often: by arrival, before all others. Else the shortest remaining first."""
    if _is_overdue(sequence):
        return (False, sequence.arrived, 0.0)
    return (True, float(sequence.n_pending), sequence.arrived)


def _note_overtaking(candidates: list[Sequence], served: dict[Sequence, int], fair: int) -> None:
    """Count the step for everyone who got less than half a `fair` chunk while somebody who came later was served.

    A rest of a chunk is not service: short prompts that leave one token over would hold a long one up for ever.
    """
    latest = max((sequence.arrived for sequence in served), default=0.0)
    for sequence in candidates:
        n_fair = min(sequence.n_pending, fair)
        if 2 * served.get(sequence, 0) < n_fair and sequence.arrived < latest:
            sequence.n_overtaken += 1
