"""What drafting needs of a draft model's context. A fake stands in tests/workers/text/drafting/fake_context.py."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Protocol

from llamabox.engine.batch import Run


@dataclass(frozen=True, slots=True)
class Guess:
    """The likeliest next token, and its probability among all tokens."""

    token: int
    chance: float


class DraftContext(Protocol):
    """A context whose sequences share one pool of cells, of text alone: cell n of a sequence stands at position n."""

    @property
    def n_sequences(self) -> int:
        """Its sequences are 0 … n_sequences - 1."""

    @property
    def n_ctx(self) -> int:
        """The most cells of one sequence."""

    @property
    def n_batch(self) -> int:
        """The most rows of one `compute`."""

    @property
    def n_vocab(self) -> int:
        """It knows tokens below this one."""

    def compute(self, runs: Seq[Run]) -> list[Guess | None]:
        """Compute runs, of a sequence each, behind what is there. A guess for each run that has an output, in order.

        None for a row of NaN. Raises a DecodeError; behind NoRoom the memory is as it was.
        """

    def keep(self, seq_id: int, n_cells: int) -> None:
        """Take back what a sequence has behind its first `n_cells`."""

    def share(self, source: int, target: int, n_cells: int) -> None:
        """Let the empty `target` begin with the first `n_cells` of `source`; none of them is computed again."""

    def clear(self) -> None:
        """Empty all sequences."""
