"""A draft context that knows a rule instead of a model, and punishes what libllama would punish."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from llamabox.engine.batch import Run
from llamabox.errors import DecodeFatal, NoRoom
from llamabox.workers.text.drafting.pace import Pace
from llamabox.workers.text.drafting.seams import DraftContext, Guess
from tests.fakes import digest


def rule(tokens: Seq[int], n_vocab: int) -> Guess:
    """What the fake says after `tokens`: every one of them counts."""
    number = digest(*tokens)
    return Guess(number % n_vocab, (number // n_vocab % 1000) / 1000)


class CostlessPace(Pace):
    """To which a round of drafting costs nothing."""

    @property
    def least_chance(self) -> float:
        return 0.0


class FakeDraftContext:
    """One pool of `n_cells` cells, which sequences may share. A cell is an object that knows its token."""

    def __init__(self, n_sequences: int, n_ctx: int, *, n_cells: int = 1 << 20, n_batch: int = 64, n_vocab: int = 7):
        self.n_sequences = n_sequences
        self.n_ctx = n_ctx
        self.n_batch = n_batch
        self.n_vocab = n_vocab
        self.n_cells = n_cells
        self.cells: list[list[list[int]]] = [[] for _ in range(n_sequences)]
        self.fails = 0  # so many of the next calls fail amid their work
        self.n_rows: list[int] = []  # of each call

    def tokens(self, seq_id: int) -> list[int]:
        return [token for [token] in self.cells[seq_id]]

    def compute(self, runs: Seq[Run]) -> list[Guess | None]:
        n_rows = sum(map(len, runs))
        assert 0 < n_rows <= self.n_batch
        assert len({run.seq_id for run in runs}) == len(runs)
        used = {id(cell) for sequence in self.cells for cell in sequence}
        if len(used) + n_rows > self.n_cells:
            raise NoRoom("no room")
        guesses: list[Guess | None] = []
        for run in runs:
            mine = self.cells[run.seq_id]
            assert run.position == len(mine), "libllama wants positions that follow one another"
            assert len(run), "an empty run"
            assert all(0 <= token < self.n_vocab for token in run.tokens), "libllama refuses such a token"
            mine += [[token] for token in run.tokens]
            assert len(mine) <= self.n_ctx
            if run.n_outputs:
                guesses.append(rule(self.tokens(run.seq_id), self.n_vocab))
        if self.fails:
            self.fails -= 1
            raise DecodeFatal("broken")
        self.n_rows.append(n_rows)
        return guesses

    def keep(self, seq_id: int, n_cells: int) -> None:
        assert 0 <= n_cells < len(self.cells[seq_id])
        del self.cells[seq_id][n_cells:]

    def share(self, source: int, target: int, n_cells: int) -> None:
        assert source != target
        assert not self.cells[target], "the target is not empty"
        assert 0 < n_cells <= len(self.cells[source])
        self.cells[target] = self.cells[source][:n_cells]

    def clear(self) -> None:
        for sequence in self.cells:
            sequence.clear()


_: DraftContext = FakeDraftContext(1, 1)
