"""Why a sequence drafts or does not: a line for the log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from llamabox.engine.sequence import Sequence

logger = logging.getLogger(__name__)


class Journal:
    """Counts what became of the steps of each sequence, where somebody reads it. Owned by the engine's thread."""

    def __init__(self) -> None:
        self.is_read = logger.isEnabledFor(logging.DEBUG)
        self._steps: dict[Sequence, Counter[str]] = {}

    def note(self, sequences: Iterable[Sequence], what: str) -> None:
        """What a step came to for each of the sequences."""
        for sequence in sequences:
            self._steps.setdefault(sequence, Counter())[what] += 1

    def end(self, sequence: Sequence) -> None:
        """Tell it, as the sequence has ended."""
        if not self.is_read or not sequence.n_generated:
            return
        steps = self._steps.pop(sequence, Counter())
        told = ", ".join(f"{what} {n}" for what, n in steps.most_common()) or "none that could have had a draft"
        timings = sequence.timings
        logger.debug(
            "%s drafts: %d tokens verified, %d came; steps: %s",
            *(sequence.request_id, timings.n_drafted, timings.n_accepted, told),
        )
