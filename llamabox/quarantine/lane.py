"""Several processes of one kind, of which a call takes the one that is free."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator

from llamabox.quarantine.trial import Bytes, Limits, Trial


class Lane:
    """Owns children that run `module`. A call takes the one that was used last, or waits until one is free.

    Thread-safe. Children start when they are needed.
    """

    def __init__(self, module: str, n: int, limits: Limits, hello: Callable[[], Bytes] | None = None) -> None:
        self._free: queue.LifoQueue[Trial] = queue.LifoQueue()
        self.children = [Trial(module, limits, hello) for _ in range(n)]
        for child in reversed(self.children):
            self._free.put(child)
        self._closing = threading.Lock()

    @contextlib.contextmanager
    def child(self) -> Iterator[Trial]:
        child = self._free.get()
        try:
            yield child
        finally:
            self._free.put(child)

    def close(self) -> None:
        """End all children; a call that runs fails. Idempotent: a later call starts others."""
        with self._closing:
            n_free = 0
            while n_free < len(self.children):
                try:
                    self._free.get(timeout=0.05).close()
                    n_free += 1
                except queue.Empty:
                    for child in self.children:
                        child.abort()
            for child in reversed(self.children):
                self._free.put(child)
