"""A sequence's own speed limit: `--tokens-per-second` and its request header."""

from __future__ import annotations

BURST = 0.25
"""A token that is late by up to so many seconds is made up for: a step of other sequences takes no longer."""


AT_ONCE = 0.05
"""A step may bring the tokens of so many seconds. More would come as a lump with a silence behind it."""


class RateLimit:
    """Says when the next token may be computed: a token bucket, refilled smoothly and all but empty from the start.

    All tokens count, however many of them one step brought.
    """

    __slots__ = ("_due", "_interval", "_n_charged", "n_at_once")

    def __init__(self, tokens_per_second: int) -> None:
        self.n_at_once = max(1, int(AT_ONCE * tokens_per_second))
        self._interval = 1.0 / tokens_per_second
        self._n_charged = 0
        self._due = 0.0

    def due(self, n_generated: int, now: float) -> float:
        """The time of the next token, once `n_generated` are there. Must be asked whenever the number has grown."""
        n_new = n_generated - self._n_charged
        if n_new:
            # The first token ends the prompt, which is not limited: time runs from there.
            base = max(self._due, now - BURST) if self._n_charged else now
            self._due = base + n_new * self._interval
            self._n_charged = n_generated
        return self._due
