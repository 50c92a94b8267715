"""A sequence's own speed limit: `--tokens-per-second` and its request header."""

from __future__ import annotations

BURST = 0.25
"""Seconds that a late token may be behind its time and still be caught up with: enough for a step of the others."""


class RateLimit:
    """A token bucket, refilled smoothly and all but empty from the start: when the next token may be computed.

    All tokens count, however many of them one step brought.
    """

    __slots__ = ("_due", "_interval", "_n_charged")

    def __init__(self, tokens_per_second: int) -> None:
        self._interval = 1.0 / tokens_per_second
        self._n_charged = 0
        self._due = 0.0

    def due(self, n_generated: int, now: float) -> float:
        """The time of the next token, once `n_generated` are there. To be asked each time that their number grew."""
        n_new = n_generated - self._n_charged
        if n_new:
            # The first token ends the prompt, which is not limited: time runs from there.
            base = max(self._due, now - BURST) if self._n_charged else now
            self._due = base + n_new * self._interval
            self._n_charged = n_generated
        return self._due
