"""A context for heads that knows a rule instead of a head, and punishes what libllama would punish."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np

from llamabox.errors import DecodeFatal, NoRoom
from llamabox.workers.text.drafting.heads.seams import HeadsContext, NextPair, Pairs, Rows
from llamabox.workers.text.drafting.seams import Guess
from tests.fakes import digest

N_VOCAB = 7
N_NUMBERS = 1 << 20
UNKNOWN = 0
"""The number of a row of zeros, which stands for one that nobody has seen."""

Cell = tuple[int, int, int]
"""Position, token, and the number of the hidden row before it."""


def number_of(row: Rows) -> int:
    """What a hidden row of these tests holds: a number, and another one that follows from it."""
    assert row.shape == (2,)
    assert row[1] == -row[0], "rows are torn apart"
    return int(row[0])


def row_of(number: int) -> Rows:
    return np.array([number, -number], np.float32)


def hidden(tokens: Seq[int]) -> int:
    """The number of the model's hidden row behind `tokens`."""
    return 1 + digest(1, *tokens) % (N_NUMBERS - 1)


def rule(number: int, token: int) -> tuple[Guess, int]:
    """What the fake says of a pair, and the number of the hidden row that it makes."""
    said = digest(2, number, token)
    return Guess(said % N_VOCAB, (said // N_VOCAB % 1000) / 1000), 1 + said // 7919 % (N_NUMBERS - 1)


class FakeHeadsContext:
    """One pool of `n_cells` cells. The test puts the model's rows into `model_rows`."""

    n_hidden = 2

    def __init__(self, n_sequences: int, *, n_cells: int = 1 << 20, n_batch: int = 16) -> None:
        self.n_batch = n_batch
        self.n_cells = n_cells
        self.cells: list[list[Cell]] = [[] for _ in range(n_sequences)]
        self.model_rows: list[int] | None = None
        """Of the model's last batch; None: it kept none, or has decoded since."""
        self.is_keeping = False
        self.fails = 0  # so many of the next calls fail amid their work
        self.n_calls = 0

    def keep_rows(self, on: bool) -> None:
        self.is_keeping = on

    def rows(self, n_rows: int) -> Rows:
        assert self.model_rows is not None, "the model kept no rows"
        assert len(self.model_rows) == n_rows
        return np.stack([row_of(number) for number in self.model_rows])

    def compute(self, parts: Seq[Pairs]) -> list[NextPair | None]:
        self.n_calls += 1
        n_rows = sum(map(len, parts))
        assert 0 < n_rows <= self.n_batch
        assert len({part.seq_id for part in parts}) == len(parts)
        assert len({part.wants for part in parts}) == 1
        if sum(map(len, self.cells)) + n_rows > self.n_cells:
            raise NoRoom("no room")
        found: list[NextPair | None] = []
        for part in parts:
            mine = self.cells[part.seq_id]
            assert len(part), "an empty part"
            assert len(part.rows) == len(part)
            assert not mine or part.position == mine[-1][0] + 1, "libllama wants positions that follow one another"
            for i, (token, row) in enumerate(zip(part.tokens, part.rows, strict=True)):
                mine.append((part.position + i, token, number_of(row)))
            if part.wants:
                guess, number = rule(mine[-1][2], mine[-1][1])
                found.append(NextPair(guess, row_of(number)))
        if self.fails:
            self.fails -= 1
            raise DecodeFatal("broken")
        return found

    def keep(self, seq_id: int, position: int) -> None:
        self.cells[seq_id] = [cell for cell in self.cells[seq_id] if cell[0] < position]

    def copy(self, source: int, target: int) -> None:
        assert source != target
        assert not self.cells[target], "the target is not empty"
        self.cells[target] = list(self.cells[source])

    def clear(self) -> None:
        for sequence in self.cells:
            sequence.clear()


_: HeadsContext = FakeHeadsContext(1)
