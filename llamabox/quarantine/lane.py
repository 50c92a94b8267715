"""Several processes of one kind, of which a call takes the one that is free."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator

from llamabox.quarantine.frames import Bytes
from llamabox.quarantine.trial import Limits, Trial

MOST_TRIES = 200
"""To get a child back: who has one may be an event loop that runs no more."""


class Lane:
    """Owns children that run `module`. A call takes the first that is free, or waits until one is.

    Thread-safe. Children start when they are needed.
    """

    def __init__(
        self,
        module: str,
        n: int,
        limits: Limits,
        hello: Callable[[], Bytes] | None = None,
        *,
        beside: Limits | None = None,
    ) -> None:
        """`beside`: limits of children that work while the first one does; None: the same."""
        self._free: queue.PriorityQueue[int] = queue.PriorityQueue()  # their numbers
        self.children = [Trial(module, limits if i == 0 else beside or limits, hello) for i in range(n)]
        for i in range(n):
            self._free.put(i)
        self._waiting: set[object] = set()  # those who want a child, and get the next one
        self._closing = threading.Lock()

    @contextlib.contextmanager
    def child(self) -> Iterator[Trial]:
        me = object()
        self._waiting.add(me)
        try:
            number = self._free.get()
        finally:
            self._waiting.discard(me)
        try:
            yield self.children[number]
        finally:
            self._free.put(number)

    def take_ready(self) -> Trial | None:
        """A child that is ready for a question, to be given back; None where none is just now, or others wait for it.

        Never blocks.
        """
        if self._waiting:
            return None
        try:
            number = self._free.get_nowait()
        except queue.Empty:
            return None
        if self.children[number].is_ready:
            return self.children[number]
        self._free.put(number)
        return None

    def give_back(self, child: Trial) -> None:
        self._free.put(self.children.index(child))

    def close(self) -> None:
        """End all children; a call that runs fails. Idempotent: a later call starts others."""
        with self._closing:
            n_free = 0
            for _ in range(MOST_TRIES):
                try:
                    self.children[self._free.get(timeout=0.05)].close()
                    n_free += 1
                except queue.Empty:
                    for child in self.children:
                        child.abort()
                if n_free == len(self.children):
                    break
            for number in range(len(self.children)):
                self._free.put(number)
