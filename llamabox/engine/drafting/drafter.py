"""What the engine needs of a drafter. Fakes stand in tests/fakes.py."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Protocol

from llamabox.engine.kv.history import History

Key = tuple[str, int]
"""A sequence, by its request and index."""


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


class Drafter(Protocol):
    """Guesses the next tokens of sequences. Called on the engine's thread.

    A text never depends on what is drafted: each position is sampled as if there were no draft, and the first token
    that differs ends it. So that a text comes out alike in any company, the length of a draft may depend on the
    sequence's own acceptance, but not on measured time or load.
    """

    def propose(self, wishes: Seq[Wish]) -> list[list[int]]:
        """A draft for each sequence, empty where there is no good guess. May be asked again before one is verified."""

    def accepted(self, key: Key, n_drafted: int, n_accepted: int) -> None:
        """The first `n_drafted` tokens of the last draft were verified, and the first `n_accepted` of them came."""

    def forget(self, key: Key) -> None:
        """The sequence has ended. Unknown ones are ignored."""
