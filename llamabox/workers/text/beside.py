"""The threads that work beside the engine's own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

STACK = 8 << 20
"""Bytes. Four times those with which a grammar is tried out (grammar_check)."""


class Beside:
    """One thread each for grammar masks, for compiling grammars, and for slot files. `close()` is idempotent.

    A thread inherits CPUs and priority of the one that starts it. All of these are started at once, so it must be made
    before the engine's thread is given the ones that are meant for computing.
    """

    def __init__(self) -> None:
        earlier = threading.stack_size(STACK)
        self.masks, self.grammars, self.files = (
            ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("masks", "grammars", "slot files")
        )
        for pool in self._all():
            pool.submit(int).result()
        threading.stack_size(earlier)

    def close(self) -> None:
        """End the threads with what they are doing; what still waits for them is not done."""
        for pool in self._all():
            pool.shutdown(cancel_futures=True)

    def _all(self) -> tuple[ThreadPoolExecutor, ...]:
        return self.masks, self.grammars, self.files
