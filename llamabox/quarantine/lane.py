"""Several processes of one kind, of which a call takes the one that is free."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator

from llamabox.quarantine.trial import Bytes, Limits, Trial


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
        self._closing = threading.Lock()

    @contextlib.contextmanager
    def child(self) -> Iterator[Trial]:
        number = self._free.get()
        try:
            yield self.children[number]
        finally:
            self._free.put(number)

    def close(self) -> None:
        """End all children; a call that runs fails. Idempotent: a later call starts others."""
        with self._closing:
            n_free = 0
            while n_free < len(self.children):
                try:
                    self.children[self._free.get(timeout=0.05)].close()
                    n_free += 1
                except queue.Empty:
                    for child in self.children:
                        child.abort()
            for number in range(len(self.children)):
                self._free.put(number)
