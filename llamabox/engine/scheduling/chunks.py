"""Media chunks whose rows are not there yet: who needs which, and who stands back until they are."""

from __future__ import annotations

from llamabox.engine.events import Activity
from llamabox.engine.request import Media, Request
from llamabox.engine.scheduling.admission import Admission
from llamabox.engine.seams import Encoder
from llamabox.engine.sequence import Sequence
from llamabox.errors import LlamaboxError

AHEAD = 2048
"""Cells of media that are asked for ahead of one sequence: enough to be encoded together, and a bound on their rows."""


class Chunks:
    """Asks the encoder for the chunks that sequences come to. Owned by the engine's thread.

    A chunk that is resident is never asked for, since a sequence begins behind it. Without an encoder nobody may have
    media.
    """

    def __init__(self, encoder: Encoder | None) -> None:
        self._encoder = encoder
        self._wanted: dict[Sequence, tuple[Media, ...]] = {}
        self._failed: set[Sequence] = set()
        self._ahead: set[Sequence] = set()  # that were looked at while they waited for a slot

    def take(self, request: Request) -> None:
        """A request was queued."""
        if self._encoder is not None and any(isinstance(segment, Media) for segment in request.prompt):
            self._encoder.take(request.request_id, request.prompt, request.contents)

    def let_go(self, request_id: str) -> None:
        """All sequences of a request have ended."""
        if self._encoder is not None:
            self._encoder.forget(request_id)

    def count(self, activity: Activity) -> None:
        """Write into `activity` what the encoder did so far."""
        if self._encoder is not None:
            self._encoder.count(activity)

    def ask(self, running: list[Sequence]) -> list[tuple[Sequence, LlamaboxError]]:
        """Have the next chunks of all `running` made. Returns the sequences that a failed encoding ends, and why.

        These are held from then on.
        """
        failed: list[tuple[Sequence, LlamaboxError]] = []
        if self._encoder is None:
            return failed
        for sequence in running:
            if sequence.cells.is_text:
                continue
            chunks = _next_chunks(sequence, sequence.n_computed)
            if chunks != self._wanted.get(sequence, ()):
                self._want(sequence, chunks)
            error = next((found for media in chunks if (found := self._encoder.error(media))), None)
            if error is not None:
                self._failed.add(sequence)
                failed.append((sequence, error))
        return failed

    def ask_ahead(self, admission: Admission) -> None:
        """Where the encoder has nothing to do, have the first chunks made of a sequence that waits for a slot."""
        if self._encoder is None or not self._encoder.is_idle:
            return
        for sequence in admission.next_in_line:
            if sequence.cells.is_text or sequence in self._ahead:
                continue
            self._ahead.add(sequence)
            if chunks := _next_chunks(sequence, admission.n_resident(sequence)):
                self._want(sequence, chunks)
                return

    def holds(self, sequence: Sequence) -> bool:
        """Whether the next cell of `sequence` is of a chunk whose rows are not there."""
        if sequence not in self._wanted:
            return False
        assert self._encoder is not None
        media = sequence.cells.media_at(sequence.n_computed)
        return sequence in self._failed or (media is not None and not self._encoder.is_ready(media))

    def forget(self, sequence: Sequence) -> None:
        """It has ended."""
        self._failed.discard(sequence)
        self._ahead.discard(sequence)
        if sequence in self._wanted:
            self._want(sequence, ())

    def _want(self, sequence: Sequence, chunks: tuple[Media, ...]) -> None:
        assert self._encoder is not None
        self._encoder.want(sequence.key, chunks)
        if chunks:
            self._wanted[sequence] = chunks
        else:
            del self._wanted[sequence]


def _next_chunks(sequence: Sequence, start: int) -> tuple[Media, ...]:
    """The chunks of its cells from `start` on, up to AHEAD cells of media, but one at least."""
    n_ahead, chunks = 0, []
    for media in sequence.cells.media_from(start):
        chunks.append(media)
        n_ahead += media.n_cells
        if n_ahead >= AHEAD:
            break
    return tuple(chunks)
