"""Turns of generating and embedding, where one thread does both and neither may starve the other."""

from __future__ import annotations

GAP = 2.0
"""Steps of generation that an embedding batch between two of them may last, if it can be cut that small."""


class Sharing:
    """Halves of the time, by what each took so far. What was idle has no claim to the time before."""

    def __init__(self) -> None:
        self._lead = 0.0  # seconds that generation took more than embedding, since both have had work
        self._step = 0.0  # the last step of generation

    @property
    def budget(self) -> float:
        """Seconds that an embedding batch should last while somebody's text is running."""
        return GAP * self._step

    def generated(self, seconds: float, *, contested: bool) -> None:
        """A step of generation took this long; `contested`: there was something to embed as well."""
        self._step = seconds
        self._lead = self._lead + seconds if contested else 0.0

    def embedded(self, seconds: float, *, contested: bool) -> None:
        """A batch of passages took this long."""
        self._lead = self._lead - seconds if contested else 0.0

    @property
    def embeds_next(self) -> bool:
        """Whether embedding is next, where both have work."""
        return self._lead > 0.0
