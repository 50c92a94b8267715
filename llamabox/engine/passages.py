"""What waits to be embedded, and whose turn it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_PASSED = 16
"""Batches in a row that may leave a request out for the sake of shorter ones."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One text to make a vector of; `index` is its place in the request's `field`."""

    request_id: str
    index: int
    tokens: tuple[int, ...]
    field: str = "input"

    @property
    def name(self) -> str:
        """How an error begins that is its fault."""
        return f"Field '{self.field}': {self.field.removesuffix('s')} {self.index}"


@dataclass(slots=True)
class Line:
    """The passages of one request, first come, first served."""

    number: int  # in the order of arrival
    passages: deque[Passage] = field(default_factory=deque)
    n_left: int = 0  # passages that the request has yet to get vectors of, those that are still to come too
    n_passed: int = 0  # batches since it last had a part in one

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Small requests first, so that a big one costs them next to nothing; but nobody waits for ever."""
        return self.n_passed < MAX_PASSED, self.n_left, self.number


class Waiting:
    """The passages that no batch has had yet. Owned by the engine's thread.

    A request's vectors depend on nothing but its own passages, so the order is free: it is what serves all best.
    """

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._n_lines = 0  # so far

    def __len__(self) -> int:
        return sum(len(line.passages) for line in self._lines.values())

    @property
    def n_requests(self) -> int:
        return len(self._lines)

    def add(self, passages: Iterable[Passage], n_left: int) -> None:
        """More of one request, which has `n_left` without a vector, these and those that are still to come."""
        for passage in passages:
            line = self._lines.get(passage.request_id)
            if line is None:
                self._n_lines += 1
                line = self._lines[passage.request_id] = Line(self._n_lines)
            line.passages.append(passage)
            line.n_left = n_left

    def remove(self, request_id: str) -> None:
        """Forget what is left of a request. Unknown ids are ignored."""
        self._lines.pop(request_id, None)

    def take(self, n_rows: int, n_most: int) -> list[Passage]:
        """The next batch: at most `n_most` passages, of `n_rows` tokens together unless one alone is longer.

        Other requests fill up a batch only while it is less than half full: from there on a batch is as quick per
        token as a full one, and whoever it answers need not wait for theirs.
        """
        taken: list[Passage] = []
        n_taken = 0
        served: list[Line] = []
        for line in sorted(self._lines.values(), key=lambda line: line.rank):
            if taken and (2 * n_taken >= n_rows or len(taken) == n_most):
                break
            n_before = len(taken)
            while line.passages and len(taken) < n_most:
                n_tokens = len(line.passages[0].tokens)
                if taken and n_taken + n_tokens > n_rows:
                    break
                taken.append(line.passages.popleft())
                line.n_left -= 1
                n_taken += n_tokens
            if len(taken) > n_before:
                served.append(line)
        self._note(served)
        return taken

    def _note(self, served: list[Line]) -> None:
        for request_id, line in list(self._lines.items()):
            line.n_passed = 0 if line in served else line.n_passed + 1
            if not line.passages:
                del self._lines[request_id]
