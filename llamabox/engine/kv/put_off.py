"""The changes that a memory puts off until the next decode, and the ones that must not be made until then."""

from __future__ import annotations


class PutOff:
    """Copies between streams and moved cells that the next decode carries out. Owned by the engine's thread.

    libllama changes at once which cells a sequence has, and at which positions. The contents of the cells change with
    the next decode: first it makes the copies, in their order, each of a whole stream; then it turns every moved key.

    So removing, cutting, moving, forgetting and copying may come in any order: they change the bookkeeping alone, and
    copies keep their order. But a state is read from and written to the contents as they are:

        a stream that                 state read (save, keep, detach)    state written (restore)
        a copy is to come from        right                              the copy would take it along
        a copy is to go to            not there yet                      the copy would overwrite it
        has moved cells               their keys are not turned yet      right: the moved cells are gone
    """

    def __init__(self) -> None:
        self._copied_from: set[int] = set()
        self._copied_to: set[int] = set()
        self._moved: set[int] = set()

    def copy(self, source: int, target: int) -> None:
        """Note a copy between streams. Keys that are to be turned in the source will be turned in the target too."""
        self._copied_from.add(source)
        self._copied_to.add(target)

    def share(self, source: int, target: int) -> None:
        """Note that the target holds the source's cells from now on, moved ones too."""
        if source in self._moved:
            self._moved.add(target)

    def move(self, slot_id: int) -> None:
        """Note that cells of a slot were moved."""
        self._moved.add(slot_id)

    def carried_out(self) -> None:
        """Note a decode: nothing is put off any more."""
        self._copied_from.clear()
        self._copied_to.clear()
        self._moved.clear()

    def may_read(self, slot_id: int) -> bool:
        """Whether a state that is read from the slot now is what the ledger says."""
        return slot_id not in self._copied_to and slot_id not in self._moved

    def may_write(self, slot_id: int) -> bool:
        """Whether a state that is written into the slot now stays there, and goes nowhere else."""
        return slot_id not in self._copied_from and slot_id not in self._copied_to
