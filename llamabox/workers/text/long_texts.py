"""The reader's second thread, for messages that take long to prepare: all other messages overtake them."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any

from llamabox.engine.request import Picture, Sound
from llamabox.machine.niceness import BESIDE_DECODES, be_nice_in_process
from llamabox.wire.signs.pulse import Pulse
from llamabox.wire.text import Call, Embed, Submit, SubmitAll

Text = Submit | Embed | Call
"""Messages with texts to tokenise."""

MIN_BYTES = 32 * 1024
"""Bytes of text from which a message is long: tokenising takes a microsecond a byte, or several."""

MIN_TOKENS = 32 * 1024

SECONDS_PER_BYTE = 20e-6
"""Seconds that a byte of long text may take on the slowest machine."""

STOP_WEIGHT = 8
"""Bytes of text that are tokenised while one character of a stop string is compiled."""

PROMPT_WEIGHT = 1024
"""Bytes of text that are tokenised while one more prompt of a request is taken in."""


def is_long(message: Text | SubmitAll) -> bool:
    """Whether a message would hold up the messages behind it, as all with media do: they are resized and the like."""
    n_texts, n_bytes = _size(message)
    return n_texts > MIN_TOKENS or n_bytes > MIN_BYTES


def _size(message: Text | SubmitAll) -> tuple[int, int]:
    """The number of texts and tokens in a message, and about the number of bytes in them and in its media."""
    n_extra = 0
    if isinstance(message, Submit | SubmitAll):
        prompts = [message.prompt] if isinstance(message, Submit) else [prompt for _, prompt in message.prompts]
        texts: list[Any] = [piece for prompt in prompts for piece in prompt]
        texts += [token for token, _ in message.params.sampling.logit_bias if isinstance(token, str)]
        n_extra = STOP_WEIGHT * sum(map(len, message.params.stop)) + PROMPT_WEIGHT * (len(prompts) - 1)
        n_extra += len(message.prediction) if isinstance(message, Submit) else 0
    elif isinstance(message, Embed):
        texts = [message.query or "", *(piece for prompt in message.prompts for piece in prompt)]
    else:
        question: Any = message.question
        texts = list(_leaves(getattr(question, one.name) for one in fields(question)))
    n_bytes = n_extra + sum(len(text) for text in texts if isinstance(text, str))
    n_bytes += sum(MIN_BYTES + _n_content(part) for part in texts if isinstance(part, Picture | Sound))
    return len(texts), n_bytes


def _n_content(part: Picture | Sound) -> int:
    return len(part.pixels if isinstance(part, Picture) else part.samples)


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    """All values in a question's fields, through nested lists. A new kind of question needs nothing here."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        else:
            yield value


class LongTexts:
    """A thread that does one long message after the other. `put` and `abort` are the reader thread's."""

    def __init__(self, prepare: Callable[[Text], Callable[[], None]], pulse: Pulse) -> None:
        """`prepare` does the work and returns a function that hands on the outcome.

        That function is not called for an aborted request.
        """
        self._prepare = prepare
        self._pulse = pulse
        self._queue: queue.SimpleQueue[Text] = queue.SimpleQueue()
        self._waiting: Counter[str] = Counter()  # messages that are here, by request
        self._lock = threading.Lock()  # so that no abort falls between the last look and the handing on
        self._thread = threading.Thread(target=self._run, name="long texts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, message: Text) -> None:
        """Queue a message."""
        if not isinstance(message, Call):
            with self._lock:
                self._waiting[message.request_id] += 1
        self._queue.put(message)

    def abort(self, request_id: str) -> None:
        """Forget the messages of a request, if any are here."""
        with self._lock:
            self._waiting.pop(request_id, None)

    def _run(self) -> None:
        be_nice_in_process(BESIDE_DECODES)
        while True:
            message = self._queue.get()
            n_texts, n_bytes = _size(message)
            with self._pulse.work("a long text", seconds=SECONDS_PER_BYTE * (n_texts + n_bytes)):
                self._do(message)

    def _do(self, message: Text) -> None:
        if isinstance(message, Call):
            self._prepare(message)()
        elif message.request_id in self._waiting:
            hand_on = self._prepare(message)
            with self._lock:
                if message.request_id in self._waiting:
                    self._waiting[message.request_id] -= 1
                    if not self._waiting[message.request_id]:
                        del self._waiting[message.request_id]
                    hand_on()
