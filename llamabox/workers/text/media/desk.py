"""The engine's Encoder: who wants which chunk, what is being encoded, and the rows that are kept."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from math import inf

from llamabox.bindings.media.chunk import ChunkRows
from llamabox.engine.events import Activity
from llamabox.engine.request import Media, Prompt
from llamabox.errors import LlamaboxError
from llamabox.workers.text.media.content import Content
from llamabox.workers.text.media.encoder import EncoderThread, Encoding, EncodingsDone

Key = tuple[str, int]

LATELY = 1.0
"""Seconds: where one picture came, others may be on their way, and these take processors before they come here."""


class EncodingDesk:
    """Belongs to the engine's thread. Owns the encoder's thread: `close()` ends it, and is idempotent.

    Rows are kept by their chunk, which content names: whoever wants an equal one gets them, at once or when the same
    encoding is done. Beyond `budget` bytes the least recently used rows go, but none that somebody wants.
    """

    def __init__(self, thread: EncoderThread, budget: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._thread = thread
        self._budget = budget
        self._clock = clock
        self._busy_until = -inf
        self._contents: dict[str, dict[Media, Content]] = {}  # by request
        self._wanted: dict[Key, dict[Media, None]] = {}
        self._n_wanting: Counter[Media] = Counter()
        self._encodings: dict[Media, Encoding] = {}  # queued, or at the encoder
        self._rows: OrderedDict[Media, ChunkRows] = OrderedDict()  # the most recently used last
        self._errors: dict[Media, LlamaboxError] = {}
        self._n_bytes = 0
        self._n_encoded = self._n_hits = 0
        self._seconds = 0.0

    def close(self) -> None:
        self._thread.close()

    def take(self, request_id: str, prompt: Prompt, contents: Mapping[Media, object]) -> None:
        taken = self._contents.setdefault(request_id, {})
        for media, content in contents.items():
            assert isinstance(content, Content)
            taken[media] = content

    def want(self, key: Key, chunks: Sequence[Media]) -> None:
        before, now = self._wanted.pop(key, {}), dict.fromkeys(chunks)
        if now:
            self._wanted[key] = now
        for media in now.keys() - before.keys():
            self._n_wanting[media] += 1
        for media in now:
            if media not in before:
                self._ask(media, self._contents[key[0]][media])
        for media in before.keys() - now.keys():
            self._n_wanting[media] -= 1
            if not self._n_wanting[media]:
                self._drop(media)
        self._trim()

    @property
    def is_idle(self) -> bool:
        return not self._encodings

    def was_busy_lately(self) -> bool:
        return not self.is_idle or self._clock() < self._busy_until

    def is_ready(self, media: Media) -> bool:
        return media in self._rows

    def has_rows(self, media: Media) -> bool:
        """Whether the rows of any chunk are there at this moment. For all threads."""
        return media in self._rows

    def error(self, media: Media) -> LlamaboxError | None:
        return self._errors.get(media)

    def forget(self, request_id: str) -> None:
        self._contents.pop(request_id, None)

    def count(self, activity: Activity) -> None:
        activity.n_encoded = self._n_encoded
        activity.encode_ms = self._seconds * 1e3
        activity.n_encode_hits = self._n_hits
        activity.n_encoding = len(self._encodings)

    def rows(self, media: Media) -> ChunkRows:
        """The rows of a chunk that is ready."""
        return self._rows[media]

    def finished(self, done: EncodingsDone) -> None:
        """The encoder's thread has done some."""
        self._busy_until = self._clock() + LATELY
        self._seconds += done.seconds
        for i, one in enumerate(done.encodings):
            del self._encodings[one.media]
            if not isinstance(done.outcome, LlamaboxError):
                self._n_encoded += 1
                self._rows[one.media] = done.outcome[i]
                self._n_bytes += _size(done.outcome[i])
            elif self._n_wanting[one.media]:
                self._errors[one.media] = done.outcome
        self._trim()

    def _ask(self, media: Media, content: Content) -> None:
        """Somebody wants `media` who did not before."""
        if media in self._rows:
            self._rows.move_to_end(media)
            self._n_hits += 1
        elif media in self._encodings:
            self._n_hits += 1
        elif media not in self._errors:
            self._encodings[media] = Encoding(media, content)
            self._thread.put(self._encodings[media])

    def _drop(self, media: Media) -> None:
        """Nobody wants `media` any more."""
        del self._n_wanting[media]
        self._errors.pop(media, None)
        encoding = self._encodings.get(media)
        if encoding is not None and self._thread.withdraw(encoding):
            del self._encodings[media]

    def _trim(self) -> None:
        if self._n_bytes <= self._budget:
            return
        for media in [media for media in self._rows if not self._n_wanting[media]]:
            self._n_bytes -= _size(self._rows.pop(media))
            if self._n_bytes <= self._budget:
                return


def _size(rows: ChunkRows) -> int:
    """Bytes of it."""
    positions = rows.positions
    return rows.embeddings.nbytes + (0 if positions is None else positions.offsets.nbytes + positions.moves.nbytes)
