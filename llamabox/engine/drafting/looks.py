"""Which sequences of a step are looked at for drafts."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from llamabox.engine.sequence import Sequence

AT_ONCE = 8
"""About as many sequences without a draft are looked at in one step: of more each has its turn every few steps."""

ALL_EVERY = 16
"""Looks of which one is at all sequences."""

PATIENT = 16
"""Looks in vain behind which half as many steps have one."""

FOUND = 8
"""Looks in vain that a look outweighs which led to a draft."""

RAREST = 8
"""Beside many sequences one step of so many has a look at least."""

RAREST_OF_FEW = 4
"""The same where all sequences are looked at together. A lone one is looked at in each step."""


class Looks:
    """Sequences with drafts are looked at in each step, the others in turn. Owned by the engine's thread.

    To look for drafts takes time of all sequences. While it leads to none, fewer and fewer steps have a look.
    """

    def __init__(self) -> None:
        self._n_steps = 0
        self._n_looks = 0
        self._n_vain = 0
        self.is_look = False
        """Whether the present step has a look, or drafts. Others are alike while looks are in vain."""

    def choose(self, sequences: Collection[Sequence], drafting: Collection[Sequence]) -> Iterable[Sequence]:
        """Those of a step's `sequences` to look at. `drafting` are those that had drafts in the last step with any."""
        n = len(sequences)
        rarest = 1 if n == 1 else RAREST_OF_FEW if n <= AT_ONCE else RAREST
        self._n_steps += 1
        self.is_look = self._n_steps % min(1 << self._n_vain // PATIENT, rarest) == 0
        if not self.is_look:
            return [one for one in drafting if one in sequences]
        self._n_looks += 1
        if n <= AT_ONCE or self._n_looks % ALL_EVERY == 0:
            # Where a few drafts would cost a pass of their own, those of all may pay.
            return sequences
        # Rows of slots side by side may share a pass.
        n_blocks = -(-n // AT_ONCE)
        turn = self._n_looks % n_blocks
        return [one for one in sequences if one in drafting or slot_id(one) // AT_ONCE % n_blocks == turn]

    def led_to(self, n_drafts: int) -> None:
        """The present step got so many drafts."""
        if n_drafts:
            self._n_vain = max(0, self._n_vain - FOUND)
            self.is_look = True
        elif self.is_look:
            self._n_vain = min(self._n_vain + 1, PATIENT * RAREST.bit_length())


def slot_id(sequence: Sequence) -> int:
    """The number of the slot that it runs in."""
    assert sequence.slot is not None
    return sequence.slot.slot_id
