"""Which LoRA set has its turn: the running sequences may have several, and one step computes one."""

from __future__ import annotations

from collections.abc import Iterable

from llamabox.engine.request import LoraSet

TURN = 4
"""Steps of decoding before another set gets its turn. Each change costs a step some milliseconds, as libllama reserves
its buffers anew: 11 ms for a model of 135 M on a CPU, where a step of one row takes 8."""


class Turns:
    """The set that has waited longest is next, so that with k sets each waits for k - 1 turns at most.

    A set that is new has waited since it came: were it served at once, a stream of new ones would hold up the others.
    """

    def __init__(self) -> None:
        self._since: dict[LoraSet, int] = {}  # by set: the number of its last turn, or of the turn in which it came
        self._n_turns = 0
        self._current: LoraSet = ()
        self._n_left = 0

    def next(self, sets: Iterable[LoraSet]) -> LoraSet:
        """The set that the next step computes: one of `sets`, which have work. There is at least one."""
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
        """End the current turn with the step that is being planned: beside prompts, other sets would wait too long."""
        self._n_left = 0
