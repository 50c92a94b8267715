"""The ledger of the KV memory: which cells are resident in which slot.

The ledger and the native memory change in one method or not at all; `check_integrity()` compares them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence as Seq

from llamabox.engine.kv.checkpoints import MOST_UNDOING, USUAL_LIMITS, CheckpointLimits, Checkpoints
from llamabox.engine.kv.copy_time import CopyTime, least_copied
from llamabox.engine.kv.history import History
from llamabox.engine.kv.host_cache import HostCache, HostMatch
from llamabox.engine.kv.prefix_index import Match, PrefixIndex
from llamabox.engine.kv.put_off import PutOff
from llamabox.engine.kv.reuse import Reuse, best_reuse
from llamabox.engine.kv.slot import Sharing, Slot, SlotState
from llamabox.engine.kv.tier.host_tier import HostTier
from llamabox.engine.seams import Memory
from llamabox.errors import DecodeError


class KVCache:
    """All slots over one Memory. Owned by the engine's thread; every method that changes cells says so."""

    def __init__(
        self,
        memory: Memory,
        n_slots: int,
        n_ctx: int,
        host_budget: int = 0,
        copy_time: CopyTime | None = None,
        limits: CheckpointLimits = USUAL_LIMITS,
    ) -> None:
        """`host_budget`: bytes of host memory for states that slots have to give up."""
        self._memory = memory
        self.copy_time = copy_time or CopyTime()
        self._host = HostCache(host_budget)
        self._clock = 0
        self._worth_copying = 1 if memory.is_unified else least_copied(n_ctx)
        self._put_off = PutOff()
        self.n_ctx = n_ctx  # cells a slot may hold
        self.slots = [Slot(i) for i in range(n_slots)]
        self._index = PrefixIndex(self.slots)
        self.sharing = Sharing(self.slots)
        self.checkpoints = Checkpoints(memory, self._host, self._put_off, self.copy_time, limits)
        self.tier = HostTier(memory, n_ctx, self.slots, self._index, self._host, self.checkpoints, self._put_off)

    @property
    def can_shift(self) -> bool:
        return self._memory.can_shift

    def n_draftable(self, n_sequences: int = 1) -> int:
        """Most cells of a sequence that `truncate` can take back after a decode of `n_sequences`; 0: none.

        A sliding window may refuse.
        """
        if self._memory.can_truncate:
            return sys.maxsize
        return self._memory.n_rollback if n_sequences <= MOST_UNDOING else 0

    @property
    def is_unified(self) -> bool:
        return self._memory.is_unified

    @property
    def n_pool(self) -> int:
        """Cells that all slots share; 0 where each has its own."""
        return self._memory.n_pool

    def free_slots(self) -> list[Slot]:
        """Free slots in the order in which to give them up: empty ones first, then the least recently used.

        With separate streams, slots beside busy ones come first of all: each gap between busy slots makes the rows
        behind it another ubatch, which costs a step nearly as much again.
        """
        free = [slot for slot in self.slots if not slot.is_busy]
        packed = not self._memory.is_unified
        free.sort(key=lambda slot: (-self._busy_neighbours(slot) * packed, len(slot.resident) > 0, slot.last_used))
        return free

    def usage(self) -> tuple[int, int]:
        """Number of cells in use, and number of cells in the fullest slot."""
        return self.sharing.n_held(), max(len(slot.resident) for slot in self.slots)

    @property
    def n_free(self) -> int:
        """Cells of the pool that no slot holds. There are more where a sliding window has forgotten some."""
        return self._memory.n_pool - self.sharing.n_held()

    def match(self, prompt: History, limit: int) -> Match:
        """The longest usable resident prefix of `prompt`, up to `limit` cells. Changes nothing."""
        found = self._index.match(prompt, limit)
        if not found.n_cells or not self._memory.has_part:
            return found
        return self.checkpoints.match(self.slots, prompt, limit)

    def best_reuse(self, slots: list[Slot], prompt: History, limit: int, n_least: int) -> Reuse | None:
        """The pieces of a prompt worth moving together inside one of `slots`, or None. Changes nothing.

        Only where cells can be moved, and not under a sliding window, which may have forgotten some in between. Text
        alone: no llama.cpp model with media lets its cells be moved but those that keep them at text's positions.
        """
        if not self._memory.can_shift or self._memory.n_window or not prompt.is_text:
            return None
        return best_reuse(slots, prompt, limit, n_least)

    def take_reuse(self, reuse: Reuse) -> int:
        """Make the slot of `reuse`, which is free, busy with its pieces moved together. Returns how many it kept."""
        slot = reuse.slot
        self.take(slot, len(slot.resident))
        n_cells = reuse.n_prefix
        for move in reuse.moves:
            if move.n_gap and not self.shift(slot, n_cells, move.n_gap):
                return 0
            n_cells += move.n_cells
        return self.truncate(slot, n_cells)

    def take(self, slot: Slot, n_cells: int) -> int:
        """Make the free `slot` busy, keeping its first `n_cells` cells. Returns how many it really kept."""
        assert not slot.is_busy
        if 2 * n_cells < len(slot.resident):
            self.tier.keep(slot)
        slot.is_busy = True
        self._touch(slot)
        return self.truncate(slot, n_cells)

    def match_host(self, prompt: History, limit: int) -> HostMatch:
        """The longest usable beginning of `prompt` in host memory, up to `limit` cells. Changes nothing."""
        return self.checkpoints.match_host(prompt, limit)

    def n_bytes(self, match: HostMatch) -> int:
        """Bytes of the state that would have to be copied from host memory."""
        return len(self._host.get(match.entry).native)

    def take_from_host(self, slot: Slot, match: HostMatch) -> int:
        """Make the free `slot` busy with cells from host memory. Returns how many it really got."""
        state = self._host.get(match.entry)
        self.tier.took()
        self.tier.keep(slot, len(state.native))
        self.restore(slot, state)
        return self.take(slot, match.n_cells)

    def copy(self, source: Slot, target: Slot, n_cells: int) -> int:
        """Make the free `target` busy with the first `n_cells` cells of `source`. Returns how many it really got.

        It gets none where computing them is cheaper: with separate streams libllama copies the whole stream.
        """
        assert source is not target
        self.take(target, 0)
        if n_cells < self._worth_copying:
            return 0
        if self._memory.n_window and not self._memory.is_unified and not self.checkpoints.may_cut(source, n_cells):
            return self._copy_state(source, target, n_cells)
        if self.tier.is_state_quicker(source, target) and (n_kept := self._copy_state(source, target, n_cells)):
            return n_kept
        # Whole sequences only: separate KV streams cannot copy a part, and a part costs the same in a unified pool.
        self._memory.seq_cp(source.slot_id, target.slot_id)
        target.resident.append_from(source.resident, 0, len(source.resident))
        target.n_exact = source.n_exact
        if not self.checkpoints.copied(source, target):
            return self.truncate(target, 0)
        n_kept = self.truncate(target, n_cells)
        if not self._memory.is_unified:
            self._put_off.copy(source.slot_id, target.slot_id)
            self.copy_time.put_off(self._memory.state_size(source.slot_id) * self.n_ctx // len(source.resident))
        else:
            self._put_off.share(source.slot_id, target.slot_id)
            self.sharing.share(source, target, n_kept)
        self._touch(source)
        return n_kept

    def truncate(self, slot: Slot, n_cells: int) -> int:
        """Forget all cells from `n_cells` on. Returns how many stay.

        Fewer stay where a media chunk would be cut, and where the memory refuses to cut: those before the last
        checkpoint, or none.
        """
        n_cells = slot.resident.whole(min(n_cells, len(slot.resident)))
        if n_cells < len(slot.resident):
            n_cells = self.checkpoints.cut(slot, n_cells)
        if n_cells == 0:
            self._memory.seq_rm(slot.slot_id, -1, -1)
            self.checkpoints.forget(slot)
        self._index.lost(slot, n_cells)
        slot.resident.truncate(n_cells)
        slot.n_exact = min(slot.n_exact, n_cells)
        self.sharing.keep(slot, n_cells)
        return n_cells

    def may_save(self, slot: Slot) -> bool:
        """Whether the cells of `slot` are what the ledger says, also before the next decode."""
        return self._put_off.may_read(slot.slot_id)

    def may_restore(self, slot: Slot) -> bool:
        """Whether a state may be put into `slot` before the next decode, which has yet to copy from it or to it."""
        return self._put_off.may_write(slot.slot_id)

    def carried_out(self, n_sequences: int = 1) -> None:
        """Note that a decode with rows of so many went through: it has done everything that was put off."""
        self._put_off.carried_out()
        self.tier.carried_out()
        self.checkpoints.carried_out(n_sequences)

    def computed(self, slot: Slot, history: History, stop: int, drafts: Seq[int] = ()) -> None:
        """Note that a decode has put cells up to `stop` of `history` and the `drafts` behind it into the memory."""
        n_before = len(slot.resident)
        self.checkpoints.computed(slot, stop - n_before)
        was_exact = slot.n_exact == n_before
        slot.resident.append_from(history, n_before, stop)
        if stop > len(history):
            slot.resident.extend(drafts[: stop - len(history)])
        if was_exact:
            slot.n_exact = len(slot.resident)

    def has_room_to_shift(self, slot: Slot, n_keep: int, n_discard: int) -> bool:
        """Whether `shift` finds room: cells that another slot holds too are not moved, the slot gets some of its own.

        Always so where no other slot holds any cells.
        """
        start, stop = slot.resident.widened(n_keep, n_keep + n_discard)
        return not self.n_pool or slot.n_shared <= stop or slot.n_shared - (stop - start) <= self.n_free

    def shift(self, slot: Slot, n_keep: int, n_discard: int) -> range:
        """Drop cells [n_keep, n_keep + n_discard) and move later ones down. Returns the cells that were dropped.

        They are more where a media chunk would be cut. None, and the slot empty, without room to shift, and where the
        memory refuses to remove a part.
        """
        assert self._memory.can_shift
        assert 0 < n_discard <= len(slot.resident) - n_keep
        start, stop = slot.resident.widened(n_keep, n_keep + n_discard)
        first, last = slot.resident.position(start), slot.resident.position(stop)
        if not self._memory.seq_rm(slot.slot_id, first, last):
            self.clear(slot)
            return range(0)
        # Moving shared cells would move them for the other slot as well.
        if slot.n_shared > stop and not self._detach(slot):
            self._forget(slot)
            return range(0)
        self._put_off.move(slot.slot_id)
        self._index.lost(slot, start)
        self._memory.seq_add(slot.slot_id, last, slot.resident.n_positions, first - last)
        slot.resident.discard(start, stop)
        slot.n_exact = min(slot.n_exact, start)
        self.sharing.keep(slot, start)
        return range(start, stop)

    def release(self, slot: Slot) -> None:
        """The sequence in `slot` has ended. Its cells stay for others to start from.

        They are forgotten if the sequence ended before the decode that makes them what the ledger says.
        """
        slot.is_busy = False
        if not self.may_save(slot):
            self.clear(slot)
        self._touch(slot)

    def clear(self, slot: Slot) -> None:
        """Forget all cells of `slot`, in the memory as well."""
        self._memory.seq_rm(slot.slot_id, -1, -1)
        self._forget(slot)

    def state_size(self, slot: Slot) -> int:
        """Bytes of the native state that `state` would copy."""
        return self._memory.state_size(slot.slot_id)

    def state(self, slot: Slot, into: memoryview | None = None) -> SlotState:
        """A copy of all that `slot` holds: in `into`, if that is large enough. Changes nothing."""
        assert self.may_save(slot) or not len(slot.resident)
        return self.tier.state(slot, into)

    def restore(self, slot: Slot, state: SlotState) -> bool:
        """Let the free `slot` hold `state`, which must be from this model. False, and the slot empty, if it cannot.

        Costs a decode of one cell where `may_restore` is false.
        """
        assert not slot.is_busy
        assert len(state.cells) <= self.n_ctx
        self.clear(slot)
        if not self.may_restore(slot) and not self._carry_out(slot):
            return False
        if not self.copy_time.run(len(state.native), lambda: self._memory.state_set(slot.slot_id, state.native)):
            return False
        if self._memory.seq_pos_max(slot.slot_id) not in state.cells.last_positions:
            self.clear(slot)
            return False
        slot.resident = state.cells.copy()
        slot.n_exact = state.n_exact
        self._touch(slot)
        return True

    def wipe(self) -> None:
        """Forget the cells of all slots, which must be free, and clear the memory."""
        assert not any(slot.is_busy for slot in self.slots)
        self._memory.clear()
        for slot in self.slots:
            self._forget(slot)

    def drop_free(self) -> int:
        """Forget the cells of the least recently used of the free slots that have some. Returns how many it had."""
        held = [slot for slot in self.slots if not slot.is_busy and len(slot.resident)]
        return self._drop(min(held, key=lambda slot: slot.last_used)) if held else 0

    def free_up(self, n_cells: int) -> None:
        """Have room for `n_cells` cells in a pool, as far as free slots can give up theirs."""
        while self.n_pool and self.n_free < n_cells and self.drop_free():
            pass

    def give_up(self, slot: Slot) -> SlotState | None:
        """Free a busy slot and forget its cells. Returns what it held, where that cannot be computed anew."""
        saved = None
        if slot.n_exact < len(slot.resident) and (self.may_save(slot) or self._carry_out(slot)):
            saved = self.state(slot)
        self.release(slot)
        self._drop(slot)
        return saved

    def _drop(self, slot: Slot) -> int:
        """Forget the cells of a free slot, but for a copy in host memory where that pays. Returns how many it had."""
        n_cells = len(slot.resident)
        self.tier.keep(slot)
        self.clear(slot)
        return n_cells

    def check_integrity(self) -> list[str]:
        """Sentences about every slot whose ledger and native memory differ; empty when all is well."""
        problems = []
        for slot in self.slots:
            expected = slot.resident.last_positions
            found = self._memory.seq_pos_max(slot.slot_id)
            if found not in expected:
                problems.append(f"slot {slot.slot_id}: ledger ends at position {expected[-1]}, memory at {found}")
            if not slot.n_shared <= len(slot.resident) <= self.n_ctx or slot.n_exact > len(slot.resident):
                problems.append(
                    f"slot {slot.slot_id}: {len(slot.resident)} cells, {slot.n_shared} shared, {slot.n_exact} exact"
                )
        return problems

    def _detach(self, slot: Slot) -> bool:
        """Give `slot` cells of its own. False, and its native memory empty, where that cannot be."""
        if not self.may_save(slot) and not self._carry_out(slot):
            self._memory.seq_rm(slot.slot_id, -1, -1)
            return False
        self.sharing.keep(slot, 0)
        return self._memory.seq_detach(slot.slot_id)

    def _carry_out(self, slot: Slot) -> bool:
        """Do what was put off now, by a decode of one cell in `slot`: only where there is no other way."""
        try:
            self._memory.carry_out(slot.slot_id)
        except DecodeError:
            return False
        self.carried_out()
        return True

    def _busy_neighbours(self, slot: Slot) -> int:
        around = self.slots[max(0, slot.slot_id - 1) : slot.slot_id + 2]
        return sum(other.is_busy for other in around)

    def _copy_state(self, source: Slot, target: Slot, n_cells: int) -> int:
        """Copy at once, by way of host memory: what a checkpoint puts into a stream, a copy put off would overwrite.

        Not where streams would wait for that.
        """
        n_bytes = 2 * self._memory.state_size(source.slot_id)
        if not self.may_save(source) or not self.may_restore(target) or not self.copy_time.fits(n_bytes):
            return 0
        target.is_busy = False
        self.restore(target, self.state(source))
        self._touch(source)
        return self.take(target, n_cells)

    def _forget(self, slot: Slot) -> None:
        self._index.lost(slot, 0)
        self.checkpoints.forget(slot)
        self.sharing.keep(slot, 0)
        slot.resident = History()
        slot.n_exact = 0

    def _touch(self, slot: Slot) -> None:
        self._clock += 1
        slot.last_used = self._clock
