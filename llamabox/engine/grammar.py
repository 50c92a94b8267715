"""What the engine needs of a grammar. The real one is workers.text.grammars.ahead, fakes stand in tests/fakes.py."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

TokenMask = NDArray[np.uint32]
"""Bit t & 31 of word t >> 5 says whether token t may come; shape [ceil(n_vocab / 32)]."""


class Constraint(Protocol):
    """What one sequence may say next. It depends on nothing but the tokens accepted so far.

    Tokens that end a generation are in its mask exactly where the text may end; they are not accepted. Every method may
    raise InvalidRequest: the grammar turned out too complex to follow, or leaves nothing to say.
    """

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow but the end."""

    def forced(self, n_most: int) -> list[int]:
        """The next tokens, up to `n_most`, that come whatever the model thinks; none where there is a choice.

        Changes nothing. The mask allows only the first of them, so that sampling gives the same text more slowly. There
        may be more behind them.
        """

    def accept(self, token: int) -> None:
        """Move on by a token that mask or `forced` allowed."""

    def prepare(self) -> None:
        """No more tokens come before the next `mask`: begin to compute it, beside the caller."""

    def mask(self) -> TokenMask:
        """The tokens that may come next: valid until the next `accept`, not to be written to."""


class Grammar(Protocol):
    """A compiled grammar. Sequences share it."""

    def start(self) -> Constraint:
        """The constraint of one sequence, at its beginning."""
