"""Drafts by llama.cpp's lookup: the token that followed an n-gram most often, one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq

from llamabox.engine.drafting.drafter import Draft, Key, Source, Wish
from llamabox.engine.drafting.lookup.counts import (
    BITS,
    LOW,
    N_MAX,
    NO_STATIC,
    NOBODY,
    Counts,
    Followers,
    Gram,
    StaticCounts,
    pushed,
)

LAX = ((2, 66), (2, 50), (1, 50), (1, 50))
"""For what a text itself has, by the place of the size among those counted: how often an n-gram must have been seen,
and in how many of a hundred cases the same token must have followed."""

STRICT = ((4, 75), (3, 66), (2, 66), (2, 66))
"""The same for what other texts had."""

STATIC_ALONE = LAX[1]
SHIFT_STATIC = BITS * (N_MAX - 2)
STATIC_WEIGHT = 100

N_DYNAMIC = 100_000
"""N-grams of the dynamic counts beyond which they are thinned out."""

N_LEFT = 80_000

N_CONTEXT = 8_192
"""So many of a prompt's last tokens are counted: four n-grams of each take about 1.5 KB."""

SLICE = 512
"""Tokens that a step counts at most of what is new: about 1 ms."""

N_DRAFT = 16
"""The longest draft: longer ones than llama.cpp's 8 pay where texts repeat."""

N_WAITING = 256
"""Outputs that wait to be counted; the oldest is dropped."""

Entries = list[tuple[Gram, dict[int, int]]]


class LookupDrafter:
    """Drafts from three counts: of the sequence, `dynamic` of earlier outputs, `static` of a corpus. A Drafter.

    The first that has a token frequent enough says it; the static counts weigh the candidates of the other two. Owned
    by the engine's thread.
    """

    computes = False

    def __init__(
        self,
        dynamic: Counts,
        static: StaticCounts = NO_STATIC,
        *,
        learns: Callable[[str], bool] = lambda audience: True,
        on_full: Callable[[Entries], None] = lambda entries: None,
    ) -> None:
        """`learns` says whose outputs the dynamic counts take in; `on_full` gets them before they are thinned out."""
        self.dynamic = dynamic
        self.has_learnt = False
        self._static = static
        self._learns = learns
        self._on_full = on_full
        self._contexts: dict[Key, _Context] = {}
        self._waiting: deque[tuple[list[int], Gram]] = deque(maxlen=N_WAITING)  # and what precedes them

    def propose(self, wishes: Seq[Wish]) -> list[Draft | None]:
        """For each sequence the tokens that followed most often."""
        budget = SLICE
        drafts: list[Draft | None] = []
        for wish in wishes:
            context = self._contexts.get(wish.key)
            if context is None:
                context = self._contexts[wish.key] = _Context(wish, self.dynamic.shifts)
            budget -= context.read(budget)
            drafts.append(self._draft(context, min(wish.n_most, N_DRAFT)))
        self._learn(budget)
        return drafts

    def accepted(self, key: Key, draft: Draft, n_verified: int, n_accepted: int) -> None:
        """Nothing to note: what came is counted as the sequence's own."""

    def truncated(self, key: Key) -> None:
        """What was counted stays counted."""
        if context := self._contexts.get(key):
            context.truncated()

    def forget(self, key: Key, said: Seq[int]) -> None:
        """The dynamic counts take in what was said, a slice at a time."""
        context = self._contexts.pop(key, None)
        if context is not None and said and self._learns(context.audience):
            self._waiting.append((list(said), 0))

    def settle(self) -> None:
        """Count all that waits to be."""
        while self._waiting:
            self._learn(SLICE)

    def _learn(self, budget: int) -> None:
        while self._waiting and budget > 0:
            output, tail = self._waiting.popleft()
            self.has_learnt = True
            tail = self.dynamic.count(output[:budget], tail)
            if len(output) > budget:
                self._waiting.appendleft((output[budget:], tail))
            budget -= len(output)
            if len(self.dynamic) > N_DYNAMIC:
                self._on_full(list(self.dynamic.followers.items()))
                self.dynamic.thin_out(N_LEFT)

    def _draft(self, context: _Context, n_most: int) -> Draft | None:
        tokens: list[int] = []
        tail, n_match = context.tail, 0
        while len(tokens) < n_most:
            token, size = self._next(tail, context.counts)
            if token < 0:
                break
            n_match = n_match or size
            tokens.append(token)
            tail = pushed(tail, token)
        return Draft(tokens, Source.LOOKUP, n_match) if tokens else None

    def _next(self, tail: Gram, context: Counts) -> tuple[int, int]:
        """The token that most likely follows, and of how many tokens the n-gram was; (-1, 0) without a good guess."""
        pair = tail >> SHIFT_STATIC
        static = self._static.followers(pair) if pair & LOW else NOBODY
        for counts, limits in ((context, LAX), (self.dynamic, STRICT)):
            for place in range(len(counts.shifts) - 1, -1, -1):
                gram = tail >> counts.shifts[place]
                followers = counts.followers.get(gram)
                if followers is not None:
                    token = _best(followers, static, *limits[place])
                    if token >= 0:
                        return token, N_MAX - counts.shifts[place] // BITS
        return (_best(static, NOBODY, *STATIC_ALONE), 2) if static else (-1, 0)


class _Context:
    """What one sequence has said so far, counted."""

    def __init__(self, wish: Wish, shifts: tuple[int, ...]) -> None:
        self._cells = wish.cells
        self.audience = wish.params.audience
        self.counts = Counts(N_MAX - shifts[0] // BITS)
        self._n_counted = max(0, len(wish.cells) - N_CONTEXT)
        self._counted: Gram = 0  # the tail of what is counted

    @property
    def tail(self) -> Gram:
        """The sequence's last tokens."""
        n_cells = len(self._cells)
        return self._counted if self._n_counted == n_cells else tail_of(self._cells.keys(max(0, n_cells - N_MAX)))

    def read(self, n_most: int) -> int:
        """Count up to `n_most` tokens that were not counted yet. Returns how many."""
        if n_most <= 0:
            return 0
        tokens = self._cells.keys(self._n_counted, self._n_counted + n_most)
        self._counted = self.counts.count(tokens, self._counted)
        self._n_counted += len(tokens)
        return len(tokens)

    def truncated(self) -> None:
        self._n_counted = len(self._cells)
        self._counted = tail_of(self._cells.keys(max(0, self._n_counted - N_MAX)))


def tail_of(tokens: Iterable[int]) -> Gram:
    """The tail of a text."""
    tail = 0
    for token in tokens:
        tail = pushed(tail, token)
    return tail


def _best(followers: Followers, static: Followers, n_least: int, percent: int) -> int:
    """The most frequent follower, weighed by the static counts; -1 where none is frequent enough."""
    best, most, weight, total = -1, 0, 0, 0
    for token, count in followers.items():
        n_static = static.get(token)
        factor = 1 if n_static is None else STATIC_WEIGHT * n_static
        if count * factor > most * weight:
            best, most, weight = token, count, factor
        total += count
    return best if total >= n_least and 100 * most >= percent * total else -1
