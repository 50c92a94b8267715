"""What the engine needs of a drafter. Fakes stand in tests/fakes.py."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Protocol

from llamabox.engine.events import Source as Source
from llamabox.engine.kv.history import History
from llamabox.engine.request import DraftingParams

NEW = -1
"""The habit of tokens that were not seen before."""

Key = tuple[str, int]
"""A sequence, by its request and index."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A guess at the next tokens of a sequence, at least one."""

    tokens: Seq[int]
    source: Source
    n_match: int = 0
    """Of a text: how many tokens in front of the draft its source has as well, counted exactly.

    Behind an edit it is what the tokens around it are worth together (text.trail), and 1 right behind a replaced one.
    """

    chances: Seq[float] = ()
    """Of a model: the probability that it gives each token. Empty where the draft was found in a text."""

    habits: Seq[int] = field(default=(), compare=False)
    """Of earlier answers: how often in a row the last tokens were followed by each token, NEW where they were new.

    Empty where nobody counted.
    """


@dataclass(frozen=True, slots=True)
class Wish:
    """A sequence that could use a draft."""

    key: Key
    cells: History
    """The prompt and what was said, to be read only. A context shift takes cells out of the middle."""

    n_generated: int
    """Tokens said so far. A context shift takes none of them back."""

    n_most: int
    """How long a draft may be, at least 1."""

    params: DraftingParams
    """What the request says of its drafts."""

    seq_id: int = -1
    """The sequence of the model's memory that has its computed cells; -1: nobody computes."""


class Drafter(Protocol):
    """Guesses the next tokens of sequences. Called on the engine's thread.

    A text never depends on what is drafted: each position is sampled as if there were no draft, and the first token
    that differs ends it.
    """

    @property
    def computes(self) -> bool:
        """Whether its guesses take computing: time that is weighed against what they bring. Others are always asked."""

    def propose(self, wishes: Seq[Wish]) -> list[Draft | None]:
        """A draft for each sequence, None where there is no good guess. May be asked again before one is verified."""

    def accepted(self, key: Key, draft: Draft, n_verified: int, n_accepted: int) -> None:
        """The first `n_verified` tokens of a draft of its own were verified, and the first `n_accepted` of them came.

        At least one was verified. Drafts that were not are not spoken of.
        """

    def truncated(self, key: Key) -> None:
        """A context shift has taken cells out of the middle of a sequence. Unknown ones are ignored."""

    def forget(self, key: Key, said: Seq[int]) -> None:
        """The sequence has ended with the output `said`; empty if it failed. Unknown ones are ignored."""
