"""Small pieces of work for a thread beside the engine's."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVarTuple

from llamabox.errors import LlamaboxError

Values = TypeVarTuple("Values")

N_AT_ONCE = 256
"""Pieces after which the thread says that it gets on."""


class Piece:
    """A piece of work that was handed over. `result` is for one thread.

    One is made of each token: it has no lock, which takes longer to make than all the rest, unless somebody waits.
    """

    __slots__ = ("_claim", "_error", "_is_done", "_values", "_waiter", "_work")

    def __init__(self, work: Callable[..., None], values: tuple[object, ...] = ()) -> None:
        self._work = work
        self._values = values
        self._error: LlamaboxError | None = None
        self._claim = [True]  # taken out by whoever begins, which one thread alone can
        self._is_done = False
        self._waiter: threading.Lock | None = None

    def do(self) -> None:
        """Do it, unless another thread has begun."""
        try:
            self._claim.pop()
        except IndexError:
            return
        try:
            self._work(*self._values)
        except LlamaboxError as error:
            self._error = error
        self._is_done = True
        if self._waiter is not None:
            self._waiter.release()

    def result(self) -> None:
        """Wait until it is done, or do it where nobody has begun. Raises what it raised."""
        if not self._is_done:
            self.do()
        if not self._is_done:
            self._wait()
        if self._error is not None:
            raise self._error

    def _wait(self) -> None:
        waiter = threading.Lock()
        waiter.acquire()
        self._waiter = waiter
        if not self._is_done:  # else it may have been done before anybody knew of the waiter
            waiter.acquire()


class Beside:
    """Does pieces of work one after the other, on one thread of an executor, which may be shared.

    Pieces wait until `begin`: a thread at work wants the interpreter now and then, which the caller has until its next
    decode. To wake it takes some 20 µs of the caller's time, so it is woken once for all pieces. Who wants a result
    before the thread comes to it does the piece.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._waiting: deque[Piece] = deque()
        self._is_at_work = False  # guarded by _lock
        self._lock = threading.Lock()

    def put(self, work: Callable[[*Values], None], *values: *Values) -> Piece:
        """Have `work` done from the next `begin` on. An exception of it that is no LlamaboxError is the executor's."""
        piece = Piece(work, values)
        self._waiting.append(piece)
        return piece

    def begin(self) -> None:
        """Have done what was put here, beside the caller."""
        if not self._waiting:
            return
        with self._lock:
            if self._is_at_work:
                return
            self._is_at_work = True
        self._executor.submit(self._run)

    def _run(self) -> None:
        for _ in range(N_AT_ONCE):
            with self._lock:
                if not self._waiting:
                    self._is_at_work = False
                    return
                piece = self._waiting.popleft()
            piece.do()
        self._executor.submit(self._run)
