"""Whose turn it is among the LoRA sets of the running sequences: one step computes one set."""

from __future__ import annotations

from collections.abc import Iterable

from llamabox.engine.request import LoraSet

TURN = 4
"""Steps of decoding before another set gets its turn: each change costs a step some milliseconds (libllama reserves its
buffers anew: 11 ms for a model of 135 M on a CPU, where a step of one row takes 8)."""


class Turns:
    """The set that has waited longest is next, so that with k sets each waits for k - 1 turns at most.

    A set that is new has waited since it came: were it served at once, a stream of new ones would hold up the others.
    """

    def __init__(self) -> None:
        self._since: dict[LoraSet, int] = {}  # by set: the number of its last turn, or of the one it came in
        self._n_turns = 0
        self._current: LoraSet = ()
        self._n_left = 0

    def next(self, sets: Iterable[LoraSet]) -> LoraSet:
        """One of the `sets` that have work, of which there is at least one."""
        waiting = dict.fromkeys(sets)
        self._since = {one: self._since.get(one, self._n_turns) for one in waiting}
        if self._n_left and self._current in waiting:
            self._n_left -= 1
            return self._current
        self._n_turns += 1
        self._current = min(waiting, key=self._since.__getitem__)
        self._since[self._current] = self._n_turns
        self._n_left = TURN - 1
        return self._current

    def end(self) -> None:
        """The current turn ends with the step that is being planned: there are prompts, which take and wait long."""
        self._n_left = 0
