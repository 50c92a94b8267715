"""What a memory puts off until the next decode, and which of the ledger's deeds cannot wait for it."""

from __future__ import annotations


class PutOff:
    """Copies between streams and moved cells that the next decode carries out. Owned by the engine's thread.

    Which cells a sequence has, and at which positions, libllama changes at once. What is in the cells it changes with
    the next decode: first the copies, in their order, each of a whole stream; then every moved key is turned.

    So removing, cutting, moving, forgetting and copying may follow one another as they like: what they change is the
    bookkeeping, and the copies keep their order. A state, however, is read from and written to the cells as they are:

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
        """Note a copy between streams. What is to be moved in the source will be in the target as well."""
        self._copied_from.add(source)
        self._copied_to.add(target)

    def share(self, source: int, target: int) -> None:
        """Note that the target holds the source's cells from now on, those too that are to be moved."""
        if source in self._moved:
            self._moved.add(target)

    def move(self, slot_id: int) -> None:
        """Note that cells of a slot were moved."""
        self._moved.add(slot_id)

    def carried_out(self) -> None:
        """Note a decode, and with it the end of all that was put off."""
        self._copied_from.clear()
        self._copied_to.clear()
        self._moved.clear()

    def may_read(self, slot_id: int) -> bool:
        """Whether a state of the slot would be what the ledger says."""
        return slot_id not in self._copied_to and slot_id not in self._moved

    def may_write(self, slot_id: int) -> bool:
        """Whether a state may be written into the slot."""
        return slot_id not in self._copied_from and slot_id not in self._copied_to
