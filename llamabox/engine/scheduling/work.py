"""One step, as it is planned."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from llamabox.engine.batch import Batch
from llamabox.engine.sequence import Sequence
from llamabox.errors import LlamaboxError


@dataclass(slots=True)
class Share:
    """One sequence's part of a step: its cells up to `stop` are computed, and `rows` of the batch choose its tokens.

    `prompt_rows` are those of all these cells, where they tell how likely the prompt's next tokens were.
    """

    sequence: Sequence
    stop: int
    rows: range
    prompt_rows: range = range(0)


@dataclass(slots=True)
class Work:
    """One step: the batch and each sequence's share of it."""

    batch: Batch = field(default_factory=Batch)
    shares: list[Share] = field(default_factory=list)
    stuck: list[tuple[Sequence, LlamaboxError]] = field(default_factory=list)  # cannot go on, and why
    most_forced: dict[Sequence, int] = field(default_factory=dict)  # cells of each on which a grammar forces some
    next_due: float | None = None  # when the first is due of those left out; inf: not before a task
    seconds_left: float = inf  # until the first is due of those that a speed limit leaves out
    n_decode: int = 0  # rows that cost what decoding rows cost, drafts among them
    n_forced: int = 0  # cells that grammars force
    n_prefill: int = 0
    n_streams: int = 0  # sequences that decode and are due, in the batch or not
    copies: bool = False  # the decode copies KV streams first

    @property
    def is_awaited(self) -> bool:
        """Whether streams stand back for it."""
        return self.n_streams > 0 and self.n_decode == 0

    @property
    def n_context(self) -> int:
        """Mean of its sequences' cells."""
        return sum(share.stop for share in self.shares) // len(self.shares)
