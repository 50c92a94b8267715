"""The passages that wait to be embedded, and which request has its turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from llamabox.engine.embedding.rooms import Room
from llamabox.errors import ContextExceeded

MAX_PASSED = 16
"""Batches in a row that may leave a request out for the sake of shorter ones."""

BIG = 16
"""A request with so many passages left is big: it has batches of its own, as it would only slow down others."""

MAX_SKIPPED = 32
"""When so many passages of a request found no room in a batch, its others are not tried."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One text to make a vector of; `index` is its place in the request's `field`."""

    request_id: str
    index: int
    tokens: tuple[int, ...]
    field: str = "input"

    @property
    def name(self) -> str:
        """The beginning of an error about this passage."""
        return name_of(self.field, self.index)


def too_long(name: str, n_tokens: int, n_ctx: int) -> ContextExceeded:
    """The error for a passage of more tokens than fit."""
    return ContextExceeded(
        f"{name} is too large to process: it has {n_tokens} tokens, and at most {n_ctx} fit",
        n_prompt_tokens=n_tokens,
        n_ctx=n_ctx,
    )


def name_of(field: str, index: int) -> str:
    """What errors call the passage at this place in a request's field."""
    return f"Field '{field}': {field.removesuffix('s')} {index}"


@dataclass(slots=True)
class PassageLine:
    """The passages of one request, first come, first served."""

    number: int  # in the order of arrival
    passages: deque[Passage] = field(default_factory=deque)
    n_left: int = 0  # passages without a vector; some may still be on their way here
    n_passed: int = 0  # batches since the last one with a passage of this request

    @property
    def is_big(self) -> bool:
        return self.n_left >= BIG

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Sort key: small requests first, so that big ones cost them next to nothing, but nobody waits for ever."""
        return self.n_passed < MAX_PASSED, self.n_left, self.number


class Waiting:
    """The passages that no batch has had yet. Owned by the engine's thread.

    A request's vectors depend on nothing but its own passages, so the order is free: it is what serves all best.
    """

    def __init__(self) -> None:
        self._lines: dict[str, PassageLine] = {}
        self._n_lines = 0  # so far

    def __len__(self) -> int:
        return sum(len(line.passages) for line in self._lines.values())

    @property
    def requests(self) -> Set[str]:
        """The requests that have passages here."""
        return self._lines.keys()

    @property
    def is_big_next(self) -> bool:
        """Whether the next batch is a big request's."""
        return bool(self._lines) and self._next.is_big

    @property
    def n_next(self) -> int:
        """Waiting tokens of the request that has the next turn, or 0."""
        return sum(len(passage.tokens) for passage in self._next.passages) if self._lines else 0

    @property
    def _next(self) -> PassageLine:
        return min(self._lines.values(), key=lambda line: line.rank)

    def add(self, passages: Iterable[Passage], n_left: int) -> None:
        """Add passages of one request. `n_left` of its passages have no vector yet, these included."""
        for passage in passages:
            line = self._lines.get(passage.request_id)
            if line is None:
                self._n_lines += 1
                line = self._lines[passage.request_id] = PassageLine(self._n_lines)
            line.passages.append(passage)
            line.n_left = n_left

    def remove(self, request_id: str) -> None:
        """Forget a request's waiting passages. Unknown ids are ignored."""
        self._lines.pop(request_id, None)

    def take(self, room: Room, n_rows: int, n_most: int) -> list[tuple[Passage, int]]:
        """Take out the next batch: at most `n_most` passages, each with its first row. `n_rows` fill it.

        Further small requests are added only while the batch is less than half full: from there on it is as quick per
        token as a full one, and its requests need not wait for theirs.
        """
        taken: list[tuple[Passage, int]] = []
        served: list[PassageLine] = []
        for line in sorted(self._lines.values(), key=lambda line: line.rank):
            if taken and (2 * room.n_used >= n_rows or len(taken) == n_most or line.is_big):
                break
            n_before = len(taken)
            left: list[Passage] = []
            while line.passages and len(taken) < n_most and len(left) < MAX_SKIPPED and room.n_used < n_rows:
                passage = line.passages.popleft()
                start = room.place(len(passage.tokens))
                if start is None:
                    left.append(passage)
                else:
                    taken.append((passage, start))
                    line.n_left -= 1
            line.passages.extendleft(reversed(left))
            if len(taken) > n_before:
                served.append(line)
        self._note(served)
        return taken

    def _note(self, served: list[PassageLine]) -> None:
        for request_id, line in list(self._lines.items()):
            line.n_passed = 0 if line in served else line.n_passed + 1
            if not line.passages:
                del self._lines[request_id]
