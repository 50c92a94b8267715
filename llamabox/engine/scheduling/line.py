"""The sequences that wait for a slot, in the order of their arrival."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from llamabox.engine.sequence import Sequence

N_FIRST = 8
"""Every step looks at so many of the sequences that wait longest for one slot, or for any."""

N_FURTHER = 24
"""Every step looks at so many of the sequences behind them: at others each time, so that each has its turn."""


class Line:
    """A queue whose cost for a step does not grow with its length.

    A step looks at a few of the sequences, and at none that insists on a busy slot.
    """

    def __init__(self) -> None:
        self._n_arrived = 0
        self._n_returned = 0
        self._n_waiting = 0
        self._places: dict[int, dict[Sequence, int]] = {}  # by slot, -1 for any: the number of each arrival
        self._n_passed = 0  # sequences behind the first ones that this round has looked at

    def __len__(self) -> int:
        return self._n_waiting

    def add(self, sequence: Sequence) -> None:
        self._places.setdefault(sequence.id_slot, {})[sequence] = self._n_arrived
        self._n_arrived += 1
        self._n_waiting += 1

    def put_first(self, sequence: Sequence) -> None:
        """Add one that goes before all others."""
        self._n_returned += 1
        waiting = self._places.get(sequence.id_slot, {})
        self._places[sequence.id_slot] = {sequence: -self._n_returned, **waiting}
        self._n_waiting += 1

    def remove(self, sequence: Sequence) -> None:
        waiting = self._places[sequence.id_slot]
        del waiting[sequence]
        self._n_waiting -= 1
        if not waiting:
            del self._places[sequence.id_slot]

    @property
    def first(self) -> list[Sequence]:
        """Those that have waited longest for any slot: a few."""
        return list(islice(self._places.get(-1, {}), N_FIRST))

    def candidates(self, free: Iterable[int]) -> list[Sequence]:
        """Sequences that one of the `free` slots may be given to, first come first: all, or some if there are many."""
        found: list[tuple[Sequence, int]] = []
        for id_slot in (-1, *free):
            waiting = self._places.get(id_slot, {})
            found += islice(waiting.items(), N_FIRST)
            found += islice(waiting.items(), N_FIRST + self._n_passed, N_FIRST + self._n_passed + N_FURTHER)
        self._n_passed += N_FURTHER
        if self._n_passed + N_FIRST >= max(map(len, self._places.values()), default=0):
            self._n_passed = 0
        return [sequence for sequence, _ in sorted(found, key=lambda one: one[1])]
