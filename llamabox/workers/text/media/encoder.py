"""The thread that makes rows of pictures and sounds while the engine's thread decodes."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from llamabox.bindings.media.chunk import ChunkRows, MediaChunk
from llamabox.engine.request import Media
from llamabox.errors import LlamaboxError, ServerFault
from llamabox.machine.niceness import BESIDE_DECODES, be_nice_in_process
from llamabox.wire.signs.pulse import Pulse
from llamabox.workers.text.media.content import Content

logger = logging.getLogger(__name__)

MOST_CELLS = 1024
"""Cells of chunks that are encoded together: more would let the first of them wait for little gain."""

SECONDS_PER_CELL = 1.0
"""Seconds that a cell may take on the slowest machine before the worker is taken for hung. Nothing can be seen of how
far an encoding is; the slowest known took a quarter of a second a cell.
"""


class ChunkEncoder(Protocol):
    """What a Projector is here."""

    def encode(self, chunks: Sequence[MediaChunk]) -> list[ChunkRows]:
        """The rows of each chunk. Raises EncodeError."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """A chunk to be encoded."""

    media: Media
    content: Content


@dataclass(frozen=True, slots=True)
class EncodingsDone:
    """Chunks that were encoded together: the rows of each, or why there are none; and how long it took."""

    encodings: list[Encoding]
    outcome: list[ChunkRows] | LlamaboxError
    seconds: float


class EncoderThread:
    """Encodes first come, first served; chunks of equal size behind the first one go with it.

    `put` and `withdraw` may be called from any thread, `done` is called on its own.
    """

    def __init__(self, projector: ChunkEncoder, done: Callable[[EncodingsDone], None], pulse: Pulse) -> None:
        self._projector = projector
        self._done = done
        self._pulse = pulse
        self._queue: deque[Encoding] = deque()  # guarded by _changed, as is the flag
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)

    def start(self) -> None:
        """It inherits the CPUs and the priority of the calling thread."""
        self._thread.start()

    def put(self, encoding: Encoding) -> None:
        with self._changed:
            self._queue.append(encoding)
            self._changed.notify()

    def withdraw(self, encoding: Encoding) -> bool:
        """Take back one that has not begun. False where it has: it will be done."""
        with self._changed:
            if encoding not in self._queue:
                return False
            self._queue.remove(encoding)
            return True

    def close(self) -> None:
        """End the thread, with what it encodes now. Idempotent."""
        with self._changed:
            self._is_closing = True
            self._queue.clear()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        be_nice_in_process(BESIDE_DECODES)
        while self._encode_next():
            pass

    def _encode_next(self) -> bool:
        """False once the thread is to end. Nothing of what was encoded stays here while it waits for more."""
        encodings = self._next()
        if not encodings:
            return False
        start = time.perf_counter()
        with self._pulse.work("the encoder", seconds=SECONDS_PER_CELL * sum(one.media.n_cells for one in encodings)):
            outcome = self._encode(encodings)
        self._done(EncodingsDone(encodings, outcome, time.perf_counter() - start))
        return True

    def _next(self) -> list[Encoding]:
        """What is encoded next, waited for. Nothing once the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closing)
            if self._is_closing:
                return []
            first = self._queue[0]
            together: list[Encoding] = []
            n_cells = 0
            for one in self._queue:
                if not together or (_is_alike(one, first) and n_cells + one.media.n_cells <= MOST_CELLS):
                    together.append(one)
                    n_cells += one.media.n_cells
            for one in together:
                self._queue.remove(one)
            return together

    def _encode(self, encodings: list[Encoding]) -> list[ChunkRows] | LlamaboxError:
        try:
            return self._projector.encode([one.content.prepared() for one in encodings])
        except LlamaboxError as error:
            logger.error("encoding failed: %s", error.message)
            return ServerFault(error.message)
        except MemoryError:
            return ServerFault("there is not enough memory to encode an image or sound")


def _is_alike(one: Encoding, other: Encoding) -> bool:
    """Whether two chunks may be encoded together: sounds never are."""
    return not one.content.is_sound and one.content.shape == other.content.shape
