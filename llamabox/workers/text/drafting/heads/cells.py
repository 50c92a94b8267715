"""What a head's context holds of each sequence of the model, and how that follows the model's memory."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np

from llamabox import errors
from llamabox.engine.batch import Run
from llamabox.workers.text.drafting.heads.seams import HeadsContext, NextPair, Pairs, Rows

FEW = 4
"""Pairs of a sequence that may wait to be computed together with what it drafts from, as rows with outputs."""

PATIENCE = 16
"""Batches in which texts went on, without a call for drafts, behind which hidden rows are not kept until there is one.

Where drafts do not pay there is a call now and then, and following the model costs a layer more.
"""


class Follower:
    """A sequence: which of its cells are there, and which pairs are to become the next ones.

        positions   first … n_done - 1 | n_done … n_seen - 1 | n_seen
                    cells of the head  | pairs that wait      | its hidden row in front is `last`

    A draft begins with a cell at n_seen, whose token the model has not computed: then n_done is n_seen + 1, and
    `ahead` is the token.
    """

    __slots__ = ("ahead", "last", "n_done", "n_seen", "rows", "seq_id", "tokens", "unknown")

    def __init__(self, seq_id: int, n_hidden: int) -> None:
        self.seq_id = seq_id
        self.unknown: Rows = np.zeros((1, n_hidden), np.float32)
        self.restart(0)

    def restart(self, position: int) -> None:
        """There are no cells. The model goes on at `position`."""
        self.n_done = self.n_seen = position
        self.tokens: list[int] = []
        self.rows: Rows = self.unknown[:0]
        self.last: Rows = self.unknown
        self.ahead = -1

    def copy_from(self, other: Follower) -> None:
        self.n_done, self.n_seen, self.ahead = other.n_done, other.n_seen, other.ahead
        self.tokens, self.rows, self.last = list(other.tokens), other.rows, other.last

    def add(self, tokens: Seq[int], rows: Rows) -> None:
        """The model computed `tokens` at n_seen; `rows` are their hidden rows."""
        n_ahead = self.n_done - self.n_seen if not self.tokens else 0
        self.tokens += tokens[n_ahead:]
        self.rows = np.concatenate([self.rows, self.last, rows[:-1]])[n_ahead:]
        self.last = rows[-1:].copy()
        self.n_seen += len(tokens)
        self.ahead = -1

    def pairs(self, more: Seq[int] = ()) -> Pairs:
        """Those that wait, and with a token `more` the one that a draft begins with: what follows it is wanted."""
        rows = np.concatenate([self.rows, self.last]) if more else self.rows
        return Pairs(self.seq_id, self.n_done, [*self.tokens, *more], rows, bool(more))

    def done(self, ahead: int = -1) -> None:
        """The pairs that waited are cells now, and so is that of the token `ahead`, if one is given."""
        self.n_done = self.n_seen + (ahead >= 0)
        self.tokens, self.rows, self.ahead = [], self.unknown[:0], ahead


class HeadCells:
    """The ledger of a head's context. It and that context's memory change in one method or not at all.

    It follows the model's memory: whoever changes that says it here, sequence by sequence. Hidden rows of a batch are
    read with the next call, before the model decodes again. Cells lag behind the model's by FEW pairs at most. Where
    the model's cells came without hidden rows, from a saved state or a picture, a sequence begins anew behind them: at
    its right position, with less to look back at. Owned by the engine's thread.
    """

    def __init__(self, context: HeadsContext, n_sequences: int) -> None:
        self._context = context
        self.followers = [Follower(seq_id, context.n_hidden) for seq_id in range(n_sequences)]
        self._fresh: list[Run] = []  # of the last batch, as long as its rows are not read
        self._n_ignored = 0  # batches since there was a call for drafts
        self._is_keeping = True
        self._is_lost = False
        context.keep_rows(True)

    # ---- what the model does ------------------------------------------------------------------------------------

    def computed(self, runs: Seq[Run]) -> None:
        """The model computed a batch of tokens."""
        if self._is_keeping:
            self._fresh = list(runs)

    def take(self) -> None:
        """Read the hidden rows of the last batch, if nobody has yet."""
        if not self._fresh:
            return
        runs, self._fresh = self._fresh, []
        rows = self._context.rows(sum(map(len, runs)))
        start = 0
        for run in runs:
            self._follow(self.followers[run.seq_id], run, rows[start : start + len(run)])
            start += len(run)
        self._compute_waiting([self.followers[run.seq_id] for run in runs])
        self._n_ignored += any(run.n_outputs for run in runs)
        if self._n_ignored >= PATIENCE:
            self._keep_rows(False)

    def cut(self, seq_id: int, position: int) -> None:
        """The model has taken back a sequence's cells from `position` on."""
        self.take()
        follower = self.followers[seq_id]
        if position < follower.n_seen:
            self._cut(follower, position)

    def moved(self, seq_id: int) -> None:
        """A sequence's cells stand elsewhere now, or are others."""
        self.take()
        self._restart(self.followers[seq_id], 0)

    def copied(self, source: int, target: int) -> None:
        """The empty `target` has the cells of `source` as well."""
        self.take()
        one, other = self.followers[source], self.followers[target]
        self._restart(other, 0)
        self._context.copy(source, target)
        other.copy_from(one)

    def cleared(self) -> None:
        """The model's memory is empty."""
        self._fresh = []
        self._clear()

    # ---- who drafts ---------------------------------------------------------------------------------------------

    def ready(self, seq_id: int, position: int) -> Follower | None:
        """The sequence, if a token at `position` is the next that the model will compute of it; else None."""
        follower = self.followers[seq_id]
        if self._is_lost or not self._is_keeping or follower.n_seen != position or not position:
            return None
        if follower.n_done > position:  # there was a draft already, which was not verified
            self._context.keep(seq_id, position)
            follower.n_done, follower.ahead = position, -1
        return follower

    def called(self) -> None:
        """There is a call for drafts."""
        self.take()
        self._n_ignored = 0
        if not self._is_lost:
            self._keep_rows(True)

    def begin(self, starts: Seq[tuple[Follower, int]]) -> list[NextPair | None]:
        """Compute what waits and behind it the token that each draft begins with. What follows, in order.

        Raises a DecodeError; behind others than NoRoom all sequences are empty.
        """
        parts = [follower.pairs([token]) for follower, token in starts]
        found = self.compute(parts)
        for follower, token in starts:
            follower.done(token)
        return found

    def compute(self, parts: Seq[Pairs]) -> list[NextPair | None]:
        """Compute the parts, in several batches where one is too small. Raises as `begin` does.

        Behind NoRoom the sequences of the parts are empty.
        """
        found: list[NextPair | None] = []
        try:
            for group in _groups(parts, self._context.n_batch):
                found += self._context.compute(group)
        except errors.NoRoom:
            for part in parts:
                follower = self.followers[part.seq_id]
                last = follower.last
                self._restart(follower, follower.n_seen)
                follower.last = last
            raise
        except errors.DecodeError:
            self._clear()
            raise
        return found

    def end(self, followers: Seq[Follower]) -> None:
        """Take back the cells of drafts."""
        for follower in followers:
            self._context.keep(follower.seq_id, follower.n_done)

    def lose(self) -> None:
        """Follow the model no more."""
        self._is_lost = True
        self._keep_rows(False)

    # ---- the ledger ---------------------------------------------------------------------------------------------

    def _follow(self, follower: Follower, run: Run, rows: Rows) -> None:
        tokens = run.tokens
        if run.position < follower.n_seen:
            self._cut(follower, run.position)
        elif run.position > follower.n_seen:
            self._restart(follower, run.position)
        if follower.n_done > follower.n_seen and follower.ahead != tokens[0]:
            self._context.keep(follower.seq_id, follower.n_seen)
            follower.done()
        follower.add(tokens, rows)

    def _compute_waiting(self, followers: Seq[Follower]) -> None:
        """Compute the pairs of sequences that have more of them than a few."""
        late = [one for one in followers if len(one.tokens) > min(FEW, self._context.n_batch - 1)]
        if not late:
            return
        try:
            self.compute([part for one in late for part in _pieces(one.pairs(), self._context.n_batch)])
        except errors.DecodeError:
            return  # they begin anew behind it; who drafts hears of what lasts
        for one in late:
            one.done()

    def _cut(self, follower: Follower, position: int) -> None:
        """Forget a sequence from `position` on, which is before n_seen."""
        n_waiting = position - follower.n_done
        if follower.tokens and n_waiting >= 0:
            follower.last = follower.rows[n_waiting : n_waiting + 1].copy()
            follower.tokens, follower.rows = follower.tokens[:n_waiting], follower.rows[:n_waiting]
        else:
            if n_waiting < 0:
                self._context.keep(follower.seq_id, position)
            follower.last = follower.unknown
            follower.n_done = position
            follower.tokens, follower.rows = [], follower.unknown[:0]
        follower.n_seen, follower.ahead = position, -1

    def _restart(self, follower: Follower, position: int) -> None:
        self._context.keep(follower.seq_id, 0)
        follower.restart(position)

    def _clear(self) -> None:
        self._context.clear()
        for follower in self.followers:
            follower.restart(0)

    def _keep_rows(self, on: bool) -> None:
        if self._is_keeping == on:
            return
        self._is_keeping = on
        self._fresh = []
        self._context.keep_rows(on)


def _groups(parts: Seq[Pairs], n_batch: int) -> list[list[Pairs]]:
    """The parts in order, as many in each group as a batch holds, and none twice of one sequence."""
    groups: list[list[Pairs]] = []
    room = 0
    for part in parts:
        if len(part) > room or any(part.seq_id == other.seq_id for other in groups[-1]):
            groups.append([])
            room = n_batch
        groups[-1].append(part)
        room -= len(part)
    return groups


def _pieces(pairs: Pairs, n_batch: int) -> list[Pairs]:
    """The same in parts that a batch holds each."""
    return [
        Pairs(
            pairs.seq_id,
            pairs.position + start,
            pairs.tokens[start : start + n_batch],
            pairs.rows[start : start + n_batch],
            pairs.wants,
        )
        for start in range(0, len(pairs), n_batch)
    ]
