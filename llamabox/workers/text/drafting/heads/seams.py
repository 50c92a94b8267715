"""What drafting needs of a context for heads. A fake stands in tests/workers/text/drafting/heads/fake_context.py."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llamabox.workers.text.drafting.seams import Guess

Rows = NDArray[np.float32]
"""Hidden rows, shape [n, n_hidden]."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Tokens of a sequence at consecutive positions, each with the hidden row of the position before it.

    `wants`: what follows the last one is wanted.
    """

    seq_id: int
    position: int
    tokens: Seq[int]
    rows: Rows
    wants: bool

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def n_outputs(self) -> int:
        """Rows with outputs: all, or none. Among others some of libllama's graphs lose which hidden row is whose."""
        return len(self.tokens) if self.wants else 0


@dataclass(frozen=True, slots=True)
class NextPair:
    """What a head says of the next token, and the hidden row that goes with that token, shape [n_hidden]."""

    guess: Guess
    row: Rows


class HeadsContext(Protocol):
    """The cells of a head, beside a model's context. A cell is of a token and of the hidden row before it.

    Sequences are those of the model's context, and share one pool of cells. A sequence's cells stand at consecutive
    positions, from any on.
    """

    @property
    def n_batch(self) -> int:
        """The most pairs of one `compute`."""

    @property
    def n_hidden(self) -> int:
        """Floats of a hidden row."""

    def keep_rows(self, on: bool) -> None:
        """Whether the model's decodes keep their hidden rows from now on, which costs them a little time."""

    def rows(self, n_rows: int) -> Rows:
        """The hidden rows of the model's last batch, which had `n_rows`. A view, valid until its next decode."""

    def compute(self, parts: Seq[Pairs]) -> list[NextPair | None]:
        """Compute pairs, of a sequence each, behind what is there. What follows each part, in order, if it is wanted.

        It is wanted of all parts or of none. None for a row of NaN. Raises a DecodeError; behind NoRoom the memory is
        as it was.
        """

    def keep(self, seq_id: int, position: int) -> None:
        """Take back the cells of a sequence from `position` on; 0: all of them."""

    def copy(self, source: int, target: int) -> None:
        """Let the empty `target` have the cells of `source`."""

    def clear(self) -> None:
        """Empty all sequences."""
