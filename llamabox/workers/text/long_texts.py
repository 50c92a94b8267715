"""The side lane of the reader: what takes long to tokenise is worked off there, and everything else overtakes it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from llamabox.workers.protocol import Call, Submit

MIN_BYTES = 32 * 1024
"""Of text in one message, from which on it is long: tokenising takes up to a microsecond a byte, or several."""

MIN_TOKENS = 32 * 1024


def is_long(message: Submit | Call) -> bool:
    """Whether it would hold up those behind it."""
    if isinstance(message, Submit):
        texts = [*message.prompt, *(key for key, _ in message.logit_bias)]
    else:
        texts = [*message.arguments.get("content", ()), *message.arguments.get("tokens", ())]
    return len(texts) > MIN_TOKENS or sum(len(text) for text in texts if isinstance(text, str)) > MIN_BYTES


class LongTexts:
    """A thread that does one long message after the other. `put` and `abort` are the reader thread's."""

    def __init__(self, prepare: Callable[[Submit | Call], Callable[[], None]]) -> None:
        """`prepare` does the work; what it returns hands on the outcome, and is not called for an aborted request."""
        self._prepare = prepare
        self._queue: queue.SimpleQueue[Submit | Call] = queue.SimpleQueue()
        self._waiting: set[str] = set()  # ids of the requests that are here
        self._lock = threading.Lock()  # so that no abort falls between the last look and the handing on
        self._thread = threading.Thread(target=self._run, name="long texts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, message: Submit | Call) -> None:
        """Its turn comes."""
        if isinstance(message, Submit):
            with self._lock:
                self._waiting.add(message.request_id)
        self._queue.put(message)

    def abort(self, request_id: str) -> None:
        """Forget a request, if it is here."""
        with self._lock:
            self._waiting.discard(request_id)

    def _run(self) -> None:
        while True:
            message = self._queue.get()
            if isinstance(message, Call):
                self._prepare(message)()
            elif message.request_id in self._waiting:
                hand_on = self._prepare(message)
                with self._lock:
                    if message.request_id in self._waiting:
                        self._waiting.remove(message.request_id)
                        hand_on()
