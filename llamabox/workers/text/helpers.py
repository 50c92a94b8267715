"""Threads that work while the engine's thread computes."""

from __future__ import annotations

import math
import threading
from functools import partial

from llamabox.machine.niceness import BESIDE_DECODES, be_nice_in_process
from llamabox.wire.signs.pulse import Pulse
from llamabox.workers.escape import WatchedPool
from llamabox.workers.text.grammars.beside import Beside
from llamabox.workers.text.grammars.trial import LIMITS

STACK = 8 << 20
"""Bytes. Four times those with which a grammar is tried out (grammars.trial)."""


class Helpers:
    """One thread each for grammar masks, for compiling grammars, and for slot files. `close()` is idempotent.

    A thread inherits CPUs and priority of the one that starts it. All of these are started at once, so it must be made
    before the engine's thread is given the ones that are meant for computing. Those that nobody waits for within a step
    yield to the threads that decode.
    """

    def __init__(self, pulse: Pulse) -> None:
        earlier = threading.stack_size(STACK)
        self.masks = WatchedPool(1, "masks", pulse)
        self.beside = Beside(self.masks)
        give_way = partial(be_nice_in_process, BESIDE_DECODES)
        compiling = LIMITS.silence(LIMITS.cpu_seconds)
        self.grammars = WatchedPool(1, "grammars", pulse, seconds=compiling, initializer=give_way)
        # For ever: a slow disk holds up nobody else.
        self.files = WatchedPool(1, "slot files", pulse, seconds=math.inf, initializer=give_way)
        for pool in self._all():
            pool.submit(int).result()
        threading.stack_size(earlier)

    def close(self) -> None:
        """End the threads with what they are doing; what still waits for them is not done."""
        for pool in self._all():
            pool.shutdown(cancel_futures=True)

    def _all(self) -> tuple[WatchedPool, ...]:
        return self.masks, self.grammars, self.files
