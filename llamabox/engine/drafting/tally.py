"""How many drafted tokens came, by where they were found and by their place in the draft."""

from __future__ import annotations

from llamabox.engine.drafting.drafter import Source
from llamabox.engine.events import DraftCounts, Timings

MAX_POSITIONS = 16
"""Places in a draft that are counted apart."""


class Tally:
    """Counts verified drafts. Owned by the engine's thread."""

    def __init__(self) -> None:
        self._counts: dict[Source, list[int]] = {}  # drafts, drafted, accepted, and those accepted at each place

    def verified(self, timings: Timings, source: Source, n_verified: int, n_accepted: int) -> None:
        """Count a draft here and in the timings of its sequence."""
        timings.n_drafted += n_verified
        timings.n_accepted += n_accepted
        if source is Source.PREDICTION:
            timings.n_foreseen += n_verified
            timings.n_foreseen_accepted += n_accepted
        counts = self._counts.setdefault(source, [0] * (3 + MAX_POSITIONS))
        counts[0] += 1
        counts[1] += n_verified
        counts[2] += n_accepted
        for place in range(3, 3 + min(n_accepted, MAX_POSITIONS)):
            counts[place] += 1

    def counts(self) -> tuple[DraftCounts, ...]:
        """A snapshot."""
        return tuple(
            DraftCounts(source, n_drafts, n_drafted, n_accepted, tuple(accepted_at))
            for source, (n_drafts, n_drafted, n_accepted, *accepted_at) in self._counts.items()
        )
