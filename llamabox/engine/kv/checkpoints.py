"""Checkpoints: the part of a slot that cannot be cut, as it was after so many cells of a text.

A recurrent layer has one state of all cells up to now, a layer with a sliding window has its last cells alone. A prompt
that leaves the text of a slot before its end goes on from the last checkpoint before that place, in whatever slot.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

from llamabox.engine.kv.copy_time import CopyTime
from llamabox.engine.kv.history import History
from llamabox.engine.kv.host_cache import HostCache, HostMatch, size
from llamabox.engine.kv.prefix_index import Match
from llamabox.engine.kv.put_off import PutOff
from llamabox.engine.kv.reuse import usable_prefix
from llamabox.engine.kv.slot import Slot, SlotState
from llamabox.engine.kv.tier.ready import LARGE
from llamabox.engine.seams import Memory

logger = logging.getLogger(__name__)

LEAST_GAP = 16
"""Least number of cells between two checkpoints of a prompt, and before the first: fewer are soon computed."""

N_MESSAGES = 3
"""Messages at the end of a prompt that each have a checkpoint before them: the one that is edited is among the last."""

MARKS_APART = 8
"""Most cells from one mark to the next where a message ends and the next one, or the answer, begins."""

GROWTH = 4
"""How many times as far from a prompt's end a checkpoint is as the one behind it, of those that are far from it."""

MOST_UNDOING = 2
"""Sequences in a decode that can be taken back by Memory.n_rollback."""

N_LATEST = 4
"""Checkpoints at the end of a text that stay whatever their distances."""


@dataclass(frozen=True, slots=True)
class CheckpointLimits:
    """How many checkpoints are kept, and where. Defaults are those of the options."""

    n_most: int = 32
    """Of one text; 0: none."""

    distance: int = 256
    """Cells from a prompt's end to the next checkpoint farther back than its last messages."""


USUAL_LIMITS = CheckpointLimits()


class Checkpoints:
    """Knows where slots can be cut, takes checkpoints of them and puts them back. Owned by the engine's thread."""

    def __init__(
        self, memory: Memory, host: HostCache, put_off: PutOff, copy_time: CopyTime, limits: CheckpointLimits
    ) -> None:
        """`host` is where they are kept."""
        self.limits = limits
        self._memory = memory
        self._host = host
        self._put_off = put_off
        self.copy_time = copy_time
        self._undoable: dict[int, int] = {}  # by slot: cells at its end that the memory can take back, until a decode
        self._n_rollback = 0  # cells that may be taken back of each sequence of the last decode
        self._undone: set[int] = set()  # slots that it took some back of, and that computed nothing since
        self.is_on = memory.has_part and host.is_on and limits.n_most > 0

    def match(self, slots: Seq[Slot], prompt: History, limit: int) -> Match:
        """The slot from which a prompt can go on with most of its first `limit` cells; of equal ones a free one."""
        best = Match()
        for slot in sorted(slots, key=lambda slot: (slot.is_busy, slot.slot_id)):
            n_cells = n_common = usable_prefix(slot, prompt, limit)
            if n_cells > best.n_cells and not self.may_cut(slot, n_cells):
                n_cells = self._find(prompt, n_cells).n_cells
            if n_cells > best.n_cells:
                best = replace(best, slot=slot, n_cells=n_cells)
            best = replace(best, n_common=max(best.n_common, n_common))
        return best

    def match_host(self, prompt: History, limit: int) -> HostMatch:
        """The entry of host memory from which a prompt can go on with most of its first `limit` cells."""
        longest = self._host.find(prompt, limit)
        if not self._memory.has_part:
            return longest
        if self._memory.part_is_all:
            part = self._find(prompt, limit)
        else:
            part = replace(longest, n_cells=self._find(prompt, longest.n_cells).n_cells)
        return max(part, self._host.find_whole(prompt, limit), key=lambda match: match.n_cells)

    def take(self, slot: Slot) -> None:
        """Keep one of `slot` as it is now, where there is none, and if there are time and room. Changes no cell."""
        n_cells = len(slot.resident)
        if not self.is_on or not n_cells or slot.n_exact < n_cells or slot.resident.whole(n_cells) != n_cells:
            return
        if not self._put_off.may_read(slot.slot_id) or self._find(slot.resident, n_cells).n_cells == n_cells:
            return
        n_bytes = self._memory.state_size(slot.slot_id, part=True)
        is_fresh = n_bytes >= LARGE
        if not self.copy_time.fits(n_bytes, is_fresh=is_fresh):
            self.copy_time.may_fit_later(n_bytes, is_fresh=is_fresh)
        elif self._host.make_room(size(n_cells, n_bytes)):
            native = self.copy_time.run(
                n_bytes, lambda: self._memory.state_get(slot.slot_id, part=True), is_fresh=is_fresh
            )
            self._host.put_part(SlotState(slot.resident.copy(), n_cells, native))
            self._thin_out(slot.resident)
            logger.debug("slot %d: a checkpoint after %d tokens, %d bytes", slot.slot_id, n_cells, n_bytes)

    def may_cut(self, slot: Slot, n_cells: int) -> bool:
        """Whether the memory can remove what `slot` holds behind `n_cells` cells, without a checkpoint."""
        n_surplus = len(slot.resident) - n_cells
        return not n_surplus or (self._takes_back(slot, n_surplus) and self._has_window(slot, n_cells))

    def cut(self, slot: Slot, n_cells: int) -> int:
        """Remove what the memory has of `slot` behind `n_cells` cells, or else behind the last checkpoint before.

        Returns how many cells stay; 0, and the memory of the slot is of no use, where that cannot be done. The ledger
        is the caller's.
        """
        position = slot.resident.position(n_cells)
        if self._takes_back(slot, len(slot.resident) - n_cells):
            is_undone = self._undoable.pop(slot.slot_id, 0) > 0
            if self._memory.seq_rm(slot.slot_id, position, -1) and self._has_window(slot, n_cells):
                if is_undone:
                    self._undone.add(slot.slot_id)
                return n_cells
        return self._put_back(slot, n_cells)

    def carried_out(self, n_sequences: int) -> None:
        """Note a decode of so many sequences, before `computed` says what is in it."""
        self._undoable.clear()
        self._n_rollback = self._memory.n_rollback if n_sequences <= MOST_UNDOING else 0

    def computed(self, slot: Slot, n_cells: int) -> None:
        """Note that the decode had `n_cells` cells of `slot`, in one run."""
        self._undone.discard(slot.slot_id)
        if self._n_rollback:
            self._undoable[slot.slot_id] = min(self._n_rollback, n_cells - 1)

    def forget(self, slot: Slot) -> None:
        """Note that the memory holds nothing of `slot`, or something else than it computed itself."""
        self._undoable.pop(slot.slot_id, None)
        self._undone.discard(slot.slot_id)

    def copied(self, source: Slot, target: Slot) -> bool:
        """Give `target`, a copy of all of `source`, its part as it should be. False where that cannot be."""
        self.forget(target)
        if source.slot_id not in self._undone:
            return True
        native = self._memory.state_get(source.slot_id, part=True)
        return self._memory.state_set(target.slot_id, native, part=True)

    def _takes_back(self, slot: Slot, n_cells: int) -> bool:
        """Whether the memory can remove the last `n_cells` cells of `slot`, but for what a window forgot."""
        return self._memory.can_truncate or 0 < n_cells <= self._undoable.get(slot.slot_id, 0)

    def _thin_out(self, text: History) -> None:
        """Of too many of one text drop those that are missed least: where the two around one are closest together."""
        parts = self._host.parts(text)
        while len(parts) > self.limits.n_most:
            ends = [0, *(part.n_cells for part in parts)]
            early = range(max(1, len(parts) - N_LATEST))
            least_missed = min(early, key=lambda i: ends[min(i + 2, len(parts))] - ends[i])
            self._host.drop(parts.pop(least_missed).entry)

    def _put_back(self, slot: Slot, n_most: int) -> int:
        found = self._find(slot.resident, min(n_most, slot.n_exact))
        if not found.n_cells or not self._put_off.may_write(slot.slot_id):
            return 0
        part = self._host.get(found.entry)
        native = part.native
        if not self.copy_time.run(len(native), lambda: self._memory.state_set(slot.slot_id, native, part=True)):
            return 0
        self.forget(slot)
        is_cut = self._memory.seq_rm(slot.slot_id, slot.resident.position(found.n_cells), -1)
        is_there = self._memory.seq_pos_max(slot.slot_id) in part.cells.last_positions
        if not is_cut or not is_there:
            return 0
        logger.debug("slot %d: back to the checkpoint after %d tokens", slot.slot_id, found.n_cells)
        return found.n_cells

    def _find(self, prompt: History, limit: int) -> HostMatch:
        """The one behind most of the first `limit` cells of `prompt`."""
        return self._host.find_part(prompt, limit) if self.is_on else HostMatch()

    def _has_window(self, slot: Slot, n_cells: int) -> bool:
        """Whether the cells are there that a token behind `n_cells` cells attends to; a window forgets older ones."""
        window = self._memory.n_window
        if not window or not n_cells:
            return True
        return 0 <= self._memory.seq_pos_min(slot.slot_id) <= max(0, slot.resident.position(n_cells) - window)


def places(
    prompt: History, wanted: Iterable[int], start: int, limit: int, n_least: int, beside: Iterable[int] = ()
) -> list[int]:
    """After how many cells of `prompt` to take checkpoints, ascending: near those `wanted`, the first ones first.

    It is computed from `start` on, and at most `limit` of its cells are of use again. Not next to each other or to
    those `beside`, which are settled and come back too; and no run of text is cut into pieces of less than `n_least`
    cells.
    """
    chosen = list(beside)
    for each in wanted:
        at = prompt.start_for(min(each, limit), n_least)
        begin = max((span.stop for span in prompt.spans if span.stop <= at), default=0)
        if at - begin < n_least:
            at = begin
        if at >= start + LEAST_GAP and all(abs(at - other) >= LEAST_GAP for other in chosen):
            chosen.append(at)
    return sorted(chosen)


def likely_ends(prompt: History, limit: int, n_common: int, marks: frozenset[int], distance: int) -> list[int]:
    """Where other prompts are likely to leave the first `limit` cells of `prompt`, the likeliest first.

    Before its last message, which is edited. Behind its last picture or sound, about which another question is asked.
    At `n_common`, where it leaves what is resident itself. At `limit`, when it comes again. Before the messages before
    the last one; and `distance` from its end and ever farther, before a
    message if there are any. Messages begin and end with `marks`; the last mark may stand before the answer.
    """
    openings = [at for at in prompt.places(marks) if 0 < at < limit - MARKS_APART]
    starts = [at for i, at in enumerate(openings) if i == 0 or at - openings[i - 1] > MARKS_APART]
    behind_media = [span.stop for span in prompt.spans if span.stop <= limit][-1:]
    found = [*starts[-1:], *behind_media, n_common, limit, *starts[-N_MESSAGES:-1][::-1]]
    distance = max(distance, LEAST_GAP)
    while distance < limit:
        before = [at for at in starts if limit - GROWTH * distance < at <= limit - distance]
        found.append(before[-1] if before else limit - distance)
        distance *= GROWTH
    return found
