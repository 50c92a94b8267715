"""When states of slots go to host memory, and which way a copy of a slot takes."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from math import inf

from llamabox.engine.kv.checkpoints import Checkpoints
from llamabox.engine.kv.host_cache import HostCache, size
from llamabox.engine.kv.prefix_index import PrefixIndex
from llamabox.engine.kv.put_off import PutOff
from llamabox.engine.kv.slot import Slot, SlotState
from llamabox.engine.kv.tier.ready import LARGE, ReadyMemory, with_slack
from llamabox.engine.seams import Memory

WORTH_KEEPING = 64
"""Least number of cells, held nowhere else, for which a state in host memory pays: it is written and read whole."""

QUICKER = 4
"""By how many times the room of a slot exceeds what it holds, where a state is copied instead of the stream.

SmolLM2-135M, 70 cells of 2,048 (47 MB): processor time of the copy of the stream 38 ms into memory that was never
written to, and 4.3 into other; of the state 2.2 and 0.3.
"""

MOST_LIFTED = 4
"""Decodes after which a state that was put into host memory for a waiting sequence is not waited for: it has gone."""


class HostTier:
    """Copies states of slots into host memory, for as long as streams bear it. Owned by the engine's thread.

    Changes no cell.
    """

    def __init__(
        self,
        memory: Memory,
        n_ctx: int,
        slots: Seq[Slot],
        index: PrefixIndex,
        host: HostCache,
        checkpoints: Checkpoints,
        put_off: PutOff,
    ) -> None:
        """`n_ctx`: cells that a slot may hold."""
        self._memory = memory
        self._n_ctx = n_ctx
        self._slots = slots
        self._index = index
        self._host = host
        self._checkpoints = checkpoints
        self._put_off = put_off
        self._copy_time = checkpoints.copy_time
        self.ready = ReadyMemory()
        self._largest: tuple[Slot | None, int] = (None, 0)  # of the free slots, when memory was last wanted for it
        self._lifted = 0  # decodes for which what was lifted waits to be taken before anything else is

    def state(self, slot: Slot, into: memoryview | None = None) -> SlotState:
        """A copy of all that `slot` holds: in `into`, if that is large enough. Changes nothing."""
        n_bytes = self._memory.state_size(slot.slot_id)
        buffer = into if into is not None and len(into) >= n_bytes else None
        is_fresh = buffer is None and n_bytes >= LARGE
        native = self._copy_time.run(n_bytes, lambda: self._memory.state_get(slot.slot_id, buffer), is_fresh=is_fresh)
        return SlotState(slot.resident.copy(), slot.n_exact, native)

    def keep(self, slot: Slot, n_more: int = 0) -> None:
        """Put a copy of a slot that is about to lose its cells into host memory, if it is worth it. Changes no cell.

        `n_more` bytes are copied behind it before the next decode.
        """
        n_cells = len(slot.resident)
        if not self._host.is_on or n_cells < WORTH_KEEPING or slot.n_exact < n_cells:
            return
        self._checkpoints.take(slot)  # the state may give way to a longer one, which cannot be cut
        n_elsewhere = max(self._index.n_shared(slot), self._checkpoints.match_host(slot.resident, n_cells).n_cells)
        if n_cells - n_elsewhere < WORTH_KEEPING or not self._put_off.may_read(slot.slot_id):
            return
        self._put_into_host(slot, n_more)

    def _put_into_host(self, slot: Slot, n_more: int = 0) -> tuple[bool, bool]:
        """Put a copy of a slot into host memory, if there are time and room. `n_more`: see `keep`.

        Returns whether it is there, and whether there may be time for it later.
        """
        n_bytes = self._memory.state_size(slot.slot_id)
        is_fresh = n_bytes >= LARGE and not self.ready.has(n_bytes)
        if not self._copy_time.fits(n_bytes, is_fresh=is_fresh, n_more=n_more):
            return False, self._copy_time.may_fit_later(n_bytes, is_fresh=is_fresh)
        memory, self._largest = self.ready.take(n_bytes), (None, 0)
        self._host.n_reserved = self.ready.n_held
        if not self._host.make_room(size(len(slot.resident), n_bytes if memory is None else len(memory))):
            return False, False
        return self._host.put(self.state(slot, memory)), False

    def is_state_quicker(self, source: Slot, target: Slot) -> bool:
        """Whether cells of `source` get into the free `target` soonest as a state, now: what the slot holds is moved.

        Between streams libllama copies all the room that a slot has. Where the source holds a small part of that, much
        of the copy is of nothing, into memory that may never have been written to. A large state that streams would
        wait for is left to the other ways.
        """
        memory, n_held = self._memory, len(source.resident)
        if memory.is_unified or memory.has_part or not (memory.is_near and memory.state_is_all):
            return False
        if not 0 < n_held * QUICKER <= self._n_ctx:
            return False
        n_bytes = self._memory.state_size(source.slot_id)
        if self._copy_time.is_awaited and n_bytes >= LARGE:
            return False
        return self._put_off.may_read(source.slot_id) and self._put_off.may_write(target.slot_id)

    def goes_by_host(self, source: Slot, n_bytes: int | None = None) -> bool:
        """Whether cells of `source` get into another slot sooner by way of host memory, as a state of `n_bytes`.

        Without `n_bytes`, as the state of all that it holds. Between streams libllama copies all the room that a slot
        has, in one go, into memory that may never have been written to.
        """
        memory, n_held = self._memory, len(source.resident)
        if not (n_held and self._host.is_on and memory.is_near) or memory.is_unified or memory.has_part:
            return False
        n_state = self._memory.state_size(source.slot_id)
        n_stream = n_state * self._n_ctx // n_held
        return 2 * (n_state if n_bytes is None else n_bytes) <= n_stream and self._copy_time.is_dear(n_stream)

    def lift(self, source: Slot, n_cells: int) -> bool:
        """Whether the first `n_cells` cells of `source` will be in host memory soon: that is worth waiting for.

        Takes a copy there, where that `goes_by_host` and streams bear it now. They get tokens before it is put into
        another slot.
        """
        copy_time, n_held = self._copy_time, len(source.resident)
        if not copy_time.is_awaited or source.n_exact < n_held or not self._put_off.may_read(source.slot_id):
            return False
        if self.has_just_lifted:
            return True
        if not self.goes_by_host(source) or self._checkpoints.match_host(source.resident, n_cells).n_cells >= n_cells:
            return False
        if copy_time.is_overdue or self._lifted:
            return True
        n_bytes = self._memory.state_size(source.slot_id)
        if n_bytes >= LARGE and not self.ready.has(n_bytes):
            self._want(n_bytes)
            return self.ready.is_coming
        is_kept, may_come = self._put_into_host(source)
        self._lifted = MOST_LIFTED if is_kept else 0
        return is_kept or may_come

    @property
    def has_just_lifted(self) -> bool:
        """Whether a state was put into host memory for a waiting sequence, and nothing has been decoded since."""
        return self._lifted == MOST_LIFTED

    def bear(self, seconds: float, pace: float = inf) -> None:
        """Let all copies between two decodes take this many seconds; inf where nobody waits for a token. See CopyTime.

        While somebody does, memory is ready for the largest state that a slot may have to give up.
        """
        self._copy_time.allow(seconds, pace)
        if not self._host.is_on or not self._copy_time.is_awaited:
            return
        free = (slot for slot in self._slots if not slot.is_busy)
        largest = max(free, key=lambda slot: len(slot.resident), default=None)
        n_cells = 0 if largest is None else len(largest.resident)
        if largest is None or n_cells < WORTH_KEEPING or (largest, n_cells) == self._largest:
            return
        self._largest = largest, n_cells
        self._want(self._memory.state_size(largest.slot_id))

    def _want(self, n_bytes: int) -> None:
        """Have memory made ready for a state of `n_bytes`, if that could be copied then. The budget knows of it."""
        n_new = with_slack(n_bytes) - self.ready.n_held
        if self._copy_time.may_fit(n_bytes) and (self.ready.has(n_bytes) or self._host.make_room(max(n_new, 0))):
            self.ready.want(n_bytes)
            self._host.n_reserved = self.ready.n_held

    def took(self) -> None:
        """Note that a sequence has taken a state from host memory: it may be the one that was lifted for it."""
        self._lifted = 0

    def carried_out(self) -> None:
        """Note a decode."""
        self._lifted = max(self._lifted - 1, 0)
