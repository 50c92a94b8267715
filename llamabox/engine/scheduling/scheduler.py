"""What the next llama_decode computes: rows that decode, prompts in chunks, or both, under one token budget."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from math import inf

from llamabox.engine.batch import Batch, Run
from llamabox.engine.drafting.drafts import Drafts
from llamabox.engine.kv.kv_cache import KVCache
from llamabox.engine.request import Media, Request
from llamabox.engine.scheduling.admission import Admission
from llamabox.engine.scheduling.chunks import Chunks
from llamabox.engine.scheduling.company import Company, Kind, joined, stragglers
from llamabox.engine.scheduling.overtaking import note_overtaking, urgency
from llamabox.engine.scheduling.pacing import Pacing
from llamabox.engine.scheduling.prompts import Prompts, Riders, has_prompt
from llamabox.engine.scheduling.turns import Turns
from llamabox.engine.scheduling.work import Share, Work
from llamabox.engine.seams import Encoder, RunnerFacts
from llamabox.engine.sequence import Sequence
from llamabox.errors import LlamaboxError, ServerFault

MAX_FORCED = 64
"""Most tokens that a grammar forces on one sequence in one step: the other sequences would notice more."""

FEW_FORCED = 16
"""Cells that a grammar forces which go into one step, however slow the machine: names and punctuation of JSON."""


class Scheduler:
    """Decides; computes nothing. Owned by the engine's thread.

    Without `cont_batching` prompts wait until nobody decodes (-nocb).
    """

    def __init__(
        self,
        cache: KVCache,
        pacing: Pacing,
        facts: RunnerFacts,
        drafts: Drafts | None = None,
        *,
        cont_batching: bool,
        slot_similarity: float,
        encoder: Encoder | None = None,
        on_start: Callable[[Sequence], None] | None = None,
    ) -> None:
        """`on_start` is shown each sequence that is about to get a slot."""
        self._cache = cache
        self._pacing = pacing
        self._company = Company(facts)
        self._prompts = Prompts(self._company, pacing, cont_batching=cont_batching)
        self._riders = Riders()
        self._drafts = drafts
        self._adds_bos = facts.adds_bos
        self._cont_batching = cont_batching
        self._admission = Admission(cache, slot_similarity, self._company.n_least, on_start, marks=facts.marks)
        self._turns = Turns()
        self._had_media = False  # a prompt with media waited when the last step was planned
        self.chunks = Chunks(encoder)
        self.running: list[Sequence] = []

    @property
    def n_waiting(self) -> int:
        return len(self._admission)

    @property
    def is_idle(self) -> bool:
        return not self.running and not self.n_waiting

    def check(self, request: Request) -> None:
        """Raise ContextExceeded or InvalidRequest for what no slot could ever take."""
        self._admission.check(request)
        for segment in request.prompt:
            if isinstance(segment, Media):
                self._company.check(segment)

    def check_integrity(self) -> list[str]:
        """Differences between the ledger and the native memory, and slots that leaked; empty when all is well."""
        held = {sequence.slot.slot_id for sequence in self.running if sequence.slot is not None}
        return self._cache.check_integrity() + [
            f"slot {slot.slot_id}: busy without a sequence"
            for slot in self._cache.slots
            if slot.is_busy and slot.slot_id not in held
        ]

    def add(self, sequence: Sequence) -> None:
        self._admission.add(sequence)

    def remove(self, sequence: Sequence, *, forget: bool = False) -> None:
        """Take out a sequence that ended. Its slot is free at once; with `forget` the slot's cells are dropped too."""
        if sequence.slot is None:
            self._admission.remove(sequence)
        else:
            self.running.remove(sequence)
            self._admission.left()
            if forget:
                self._cache.clear(sequence.slot)
            self._cache.release(sequence.slot)
        self.chunks.forget(sequence)
        sequence.end()

    def give_way(self) -> bool:
        """The pool has no room: let the latest comer wait for a slot again, and give up its cells.

        False where nobody else runs, or where each has a memory of its own.
        """
        if not self._cache.n_pool or len(self.running) < 2:
            return False
        latest = max(reversed(self.running), key=_arrival)
        assert latest.slot is not None
        self.running.remove(latest)
        latest.step_back(self._cache.give_up(latest.slot))
        self.chunks.forget(latest)
        self._admission.put_back(latest)
        return True

    def admit(self, now: float) -> list[Sequence]:
        """Give slots to those who can have one, and return those that begin: they have one, and their grammar is there.

        What is copied for them belongs to the step that `schedule` plans next, however often slots are given before.
        """
        n_streams = sum(not sequence.is_prefilling for sequence in self.running)
        self._cache.tier.bear(self._pacing.pause(n_streams), self._pacing.spare(n_streams))
        admitted = self._admission.admit(self.running)
        for sequence in admitted:
            if sequence.admitted == sequence.arrived:
                sequence.admitted = now
        ready = [sequence for sequence in admitted if sequence.stand is None]
        standing = [sequence for sequence in self.running if sequence.stand is not None]
        return ready + [sequence for sequence in standing if sequence.takes_grammar(now)]

    def schedule(self, now: float) -> Work:
        """Plan one step. Turns and overtaking are counted as if it were computed: plan none in vain.

        Left out are sequences whose speed limit is not due yet, and those that wait for the encoder or for a grammar.
        """
        self._cache.copy_time.begin_step()
        stuck = self._shift_all()
        work = Work(stuck=stuck + self.chunks.ask(self.running), copies=self._cache.copy_time.has_put_off)
        self.chunks.ask_ahead(self._admission)
        ended = {sequence for sequence, _ in stuck}
        able = [one for one in self.running if not (one in ended or one.is_held or self.chunks.holds(one))]
        due = [(now if sequence.rate_limit is None else sequence.due(now), sequence) for sequence in able]
        next_due = min((time for time, _ in due if time > now), default=None)
        work.next_due = inf if next_due is None and len(able) < len(self.running) else next_due
        work.seconds_left = inf if next_due is None else next_due - now
        ready = [sequence for time, sequence in due if time <= now]
        mine = self._whose_turn(ready, work.batch)
        at_media = dict.fromkeys(sequence for sequence in mine if sequence.is_media)
        waiting = dict.fromkeys(filter(has_prompt, mine))
        others = [sequence for sequence in mine if sequence not in waiting and sequence not in at_media]
        rows = {sequence: 1 if sequence.is_prefilling else self._n_decoding(sequence) for sequence in others}
        work.most_forced = self._pace_forced(rows, ready)
        has_media = bool(at_media) or any(not sequence.cells.is_text for sequence in waiting)
        # The step behind the last chunk is one that streams wait for beside it.
        apart = self._apart(rows) if has_media or self._had_media else set()
        self._had_media = has_media
        # Streams of other LoRA sets wait for the end of this step, too.
        work.n_streams = sum(not sequence.is_prefilling for sequence in ready)
        copy_time = self._cache.copy_time
        is_long = copy_time.is_noticed if has_media else copy_time.is_long
        is_calm = not (rows and is_long)  # else a prompt's chunk would be one wait too many
        spent = copy_time.before
        chunk = self._prompts.chunk(ready, next_due, now, spent, apart) if waiting and is_calm else 0
        prompts = [sequence for sequence in waiting if sequence not in at_media]
        # A text whose cells were lost computes them again while it decodes: it does not wait as a prompt does.
        media = [sequence for sequence in at_media if chunk or not sequence.is_prefilling]
        self._fill(work, self._plan(work, rows, apart, prompts, media, chunk))
        if len(mine) < len(ready) and any(has_prompt(sequence) for sequence in ready):
            self._turns.end()
        return work

    def _apart(self, rows: Collection[Sequence]) -> set[Sequence]:
        """Those of `rows` that take turns with prompts which bring media, since they have a pass of their own.

        The others would wait for both between two tokens. Of pictures that come together those which are answered first
        are in whatever slots they have, and what is short of the others is computed meanwhile. So are prompts of which
        one cell is left before a picture, or at their end, where their slots are apart from those of all streams.
        """
        if self._cache.is_unified or not self._company.parts_stragglers:
            return set()
        streams = [_slot_id(sequence) for sequence in rows if not sequence.is_prefilling]
        near = {*streams, *joined(streams, [_slot_id(sequence) for sequence in rows])}
        slot_ids = stragglers(near or [_slot_id(sequence) for sequence in rows])
        return {one for one in rows if _slot_id(one) in slot_ids or (near and _slot_id(one) not in near)}

    def _n_decoding(self, sequence: Sequence) -> int:
        """Cells that a decoding sequence has to compute: no drafts, and none behind the context's end."""
        n_owed = sequence.n_owed
        if n_owed == 1:  # the usual case, which has room
            return 1
        return min(n_owed, sequence.n_stretch, self._cache.n_ctx - 1 - sequence.n_computed)

    def _pace_forced(self, rows: dict[Sequence, int], ready: list[Sequence]) -> dict[Sequence, int]:
        """The most cells of each sequence that a grammar forces in this step, of those with more than one.

        The first has generated the least: it stood back before.

        Other streams notice them as they notice prompts, so that beside streams the same pace holds for them, all
        together. A few cells of each go in any case.
        """
        forcing = sorted((sequence for sequence, n_cells in rows.items() if n_cells > 1), key=_n_generated)
        if not forcing:
            return {}
        n_streams = sum(not sequence.is_prefilling for sequence in ready) - len(forcing)
        budget = self._pacing.chunk(n_streams, len(forcing)) if n_streams > 0 else len(forcing) * (1 + MAX_FORCED)
        most: dict[Sequence, int] = {}
        for sequence in forcing:
            most[sequence] = max(FEW_FORCED, min(budget, 1 + MAX_FORCED))
            budget -= min(rows[sequence], most[sequence])
        return most

    def _plan(
        self,
        work: Work,
        rows: dict[Sequence, int],
        apart: set[Sequence],
        prompts: list[Sequence],
        media: list[Sequence],
        chunk: int,
    ) -> dict[Sequence, int]:
        """Cells of each sequence in this step: of `rows`, which decode, and of `prompts`, or of `media`.

        Of the `rows` those of sequences `apart` go in one step, and the others in another.
        """
        company = self._company
        exclusive = [sequence for sequence in media if sequence.is_exclusive]
        beside = [sequence for sequence in rows if sequence not in apart]
        may_ride = self._had_media and company.parts_stragglers and not self._cache.is_unified
        rides = may_ride and self._riders.are_enough(prompts, media, beside, chunk)
        kinds = company.kinds(
            rows.values(),
            has_prompts=bool(prompts and chunk and not rides),
            has_media=len(exclusive) < len(media),
            has_exclusive=bool(exclusive),
            has_apart=bool(apart),
        )
        if not kinds:
            return {}
        turn = company.turn(work.batch.lora, kinds)
        riders = self._riders.join(prompts, beside, chunk, turn) if rides and not media else []
        self._riders.note(turn, len(prompts) - len(riders), rides=rides)
        if turn is Kind.EXCLUSIVE:
            return self._add_exclusive(work, exclusive)
        if turn is Kind.MEDIA:
            return self._add_media(work, [sequence for sequence in media if not sequence.is_exclusive], chunk)
        parts: dict[Sequence, int] = {}
        if turn is Kind.RUN and company.forces_beside:
            room = company.room(turn, 0)
        elif turn is Kind.RUN:
            room = self._add_forced(work, parts, rows, company.room(turn, 0))
            work.n_forced = sum(parts.values())
        else:
            chosen = {one: n for one, n in rows.items() if (one in apart) == (turn is Kind.APART)} if apart else rows
            room = self._add_rows(work, parts, chosen, turn)
            work.n_decode = sum(not sequence.is_prefilling for sequence in parts)
            work.n_forced = sum(parts.values()) - len(parts)
            parts |= dict.fromkeys(riders, 1)
            work.n_decode += len(riders)
            room -= len(riders)
        if turn not in (Kind.LONE, Kind.APART):
            spares_last = work.n_streams > 0 and company.parts_stragglers
            prefill = self._prompts.share(prompts, room, chunk, parts, spares_last=spares_last)
            work.n_prefill = sum(prefill.values())
            room -= work.n_prefill
            parts |= prefill
        if turn is not Kind.RUN or not work.n_prefill:
            work.n_decode += self._add_drafts(parts, room, work.seconds_left)
        return parts

    def _add_exclusive(self, work: Work, exclusive: list[Sequence]) -> dict[Sequence, int]:
        """One chunk of one sequence, whole and by itself however long it takes."""
        first = min(exclusive, key=urgency)
        work.n_prefill = first.n_stretch
        note_overtaking(exclusive, {first: first.n_stretch}, first.n_stretch)
        return {first: first.n_stretch}

    def _add_media(self, work: Work, media: list[Sequence], chunk: int) -> dict[Sequence, int]:
        """Cells of causal chunks: as of prompts, or where no prompt waits for them, as many as go into a batch."""
        room = self._company.room(Kind.MEDIA, 0)
        parts = self._prompts.share(media, room, chunk or room, {})
        work.n_prefill = sum(parts.values())
        return parts

    def _add_rows(self, work: Work, parts: dict[Sequence, int], rows: dict[Sequence, int], turn: Kind) -> int:
        """Add a cell of each sequence that decodes, and then its further cells. Returns the room that is left."""
        if not self._company.forces_beside:
            rows = {sequence: 1 for sequence, n_cells in rows.items() if n_cells == 1}
        room = self._company.room(turn, len(rows))
        if sum(rows.values()) == len(rows):
            parts |= rows
            return room
        for sequence, n_cells in rows.items():
            parts[sequence] = min(n_cells, 1 + room, work.most_forced.get(sequence, 1))
            room -= parts[sequence] - 1
        return room

    def _add_drafts(self, parts: dict[Sequence, int], room: int, seconds_left: float) -> int:
        """Add drafts in the `room` that everything else leaves. Returns how many were added."""
        # What is longer than a row has a pass behind that of the drafts, as further sequences would.
        n_beside = len(parts) if len(parts) == 1 or max(parts.values()) == 1 else sys.maxsize
        if self._drafts is None or not self._cache.n_draftable(n_beside):
            return 0
        lengths = self._drafts.plan(parts, room, seconds_left)
        for sequence, n_drafts in lengths.items():
            parts[sequence] += n_drafts
        return sum(lengths.values())

    def _add_forced(self, work: Work, parts: dict[Sequence, int], rows: dict[Sequence, int], room: int) -> int:
        """Add the runs of cells that grammars force. Returns the room that is left."""
        for sequence, n_most in work.most_forced.items():
            length = self._company.run_length(Kind.RUN, rows[sequence], min(room, n_most), set(parts.values()))
            if length:
                parts[sequence] = length
            room -= length
        return room

    def _whose_turn(self, ready: list[Sequence], batch: Batch) -> list[Sequence]:
        """The `ready` sequences whose LoRA set has its turn. The batch gets that set."""
        able = ready
        if not self._cont_batching and any(not sequence.is_prefilling for sequence in ready):
            able = [sequence for sequence in ready if not has_prompt(sequence)]
        if not able:
            return []
        batch.lora = self._turns.next(sequence.params.lora for sequence in able)
        return [sequence for sequence in ready if sequence.params.lora == batch.lora]

    def _shift_all(self) -> list[tuple[Sequence, LlamaboxError]]:
        """Shift the contexts whose next cell would reach the end. Returns the sequences that cannot go on, and why."""
        # No prompt comes there: it is shorter than the context.
        at_end = [sequence for sequence in self.running if sequence.n_computed + 1 >= self._cache.n_ctx]
        stuck = [sequence for sequence in at_end if self._find_room(sequence) and not self._shift(sequence)]
        return [(sequence, ServerFault("Context size has been exceeded.")) for sequence in stuck]

    def _find_room(self, sequence: Sequence) -> bool:
        """Whether the context of `sequence` is to be shifted now.

        Cells that other slots hold as well are not moved: it gets some of its own. Where a pool has no room for that,
        cached cells go, or else the latest comer waits for a slot again, which may be `sequence` itself.
        """
        while sequence.slot is not None:
            n_keep, n_discard = sequence.to_drop(self._adds_bos, self._cache.n_ctx)
            if self._cache.has_room_to_shift(sequence.slot, n_keep, n_discard):
                return True
            if not self._cache.drop_free() and not self.give_way():
                return True  # nobody else holds any cells
        return False

    def _shift(self, sequence: Sequence) -> bool:
        """Shift its context. False where the memory refuses."""
        assert sequence.slot is not None
        dropped = self._cache.shift(sequence.slot, *sequence.to_drop(self._adds_bos, self._cache.n_ctx))
        if dropped:
            sequence.cells.discard(dropped.start, dropped.stop)
            sequence.truncated = True
            if self._drafts is not None:
                self._drafts.truncated(sequence)
        return bool(dropped)

    def _fill(self, work: Work, parts: dict[Sequence, int]) -> None:
        """Lay out the batch in the order of the slots: only so does libllama compute separate KV streams together."""
        for sequence in sorted(parts, key=_slot_id):
            cells, start, slot_id = sequence.cells, sequence.n_computed, _slot_id(sequence)
            stop, n_cells = start + parts[sequence], len(cells)
            [(position, content)] = cells.rows(start, min(stop, n_cells))
            n_drafts = stop - n_cells
            n_outputs = int(n_drafts == 0 and sequence.params.n_predict != 0)
            if n_drafts > 0:
                assert isinstance(content, list), "nothing is drafted behind media"
                content += sequence.drafts
                n_outputs = 1 + n_drafts
            n_told = len(content) if sequence.tells_prompt and sequence.is_prefilling else 0
            last = work.batch.add(Run(slot_id, position, content, max(n_outputs, n_told)))
            work.shares.append(Share(sequence, stop, range(last - n_outputs, last), range(last - n_told, last)))


def _slot_id(sequence: Sequence) -> int:
    assert sequence.slot is not None
    return sequence.slot.slot_id


def _arrival(sequence: Sequence) -> float:
    return sequence.arrived


def _n_generated(sequence: Sequence) -> int:
    return sequence.n_generated
