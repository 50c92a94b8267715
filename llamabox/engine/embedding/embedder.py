"""Vectors for many requests at once: passages → batches → vectors."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any

from llamabox import errors
from llamabox.engine.batch import Batch, Run
from llamabox.engine.embedding.media_passages import MediaPassage, MediaPassages
from llamabox.engine.embedding.passages import Passage, Waiting, too_long
from llamabox.engine.embedding.rooms import PlainRoom, TiledRoom
from llamabox.engine.events import Activity, Failed, Vector
from llamabox.engine.seams import Encoder, Pooler

BRIEF = 8
"""A brief batch has one in so many of the rows that are best, because a small request may have to wait for its end. A
batch of 128 rows of short texts took a MiniLM 50 ms on one core, where a text of eight words alone takes 8."""


@dataclass(slots=True, eq=False)
class Job:
    """One batch of whole passages, each with its first row."""

    taken: list[tuple[Passage, int]]
    batch: Batch
    n_tokens: int  # of the passages; filling rows are not counted
    is_big: bool = False  # its passages are a big request's
    is_brief: bool = False
    dropped: set[str] = field(default_factory=set)  # requests that were aborted meanwhile


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a batch gave: the vectors of its passages, or why there are none (`errors.to_wire()`)."""

    seconds: float
    data: list[bytes]
    error: dict[str, Any] | None = None


def compute(job: Job, pooler: Pooler, clock: Callable[[], float] = time.perf_counter) -> Outcome:
    """Compute a batch, on the thread that the pooler belongs to. Changes nothing but the pooler."""
    start = clock()
    try:
        pooler.execute(job.batch)
        data = [
            pooler.vector(seq_id, range(first, first + len(one.tokens)))
            for seq_id, (one, first) in enumerate(job.taken)
        ]
    except errors.DecodeError as error:
        fault = errors.ServerFault(f"decode failed: {error.message}")
        return Outcome(clock() - start, [], errors.to_wire(fault))
    finally:
        pooler.forget()
    return Outcome(clock() - start, data)


class Embedder:
    """Embeds passages in batches that may hold those of several requests. Single-threaded, as the engine is.

    A passage's vector is the same whatever else is in the batch, and each passage gets one Vector or one Failed.
    """

    def __init__(
        self,
        pooler: Pooler,
        *,
        n_ctx: int,
        n_rows: int,
        encoder: Encoder | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`n_ctx`: most tokens of a passage. `n_rows`: rows beyond which a larger batch gains nothing.

        Without an `encoder` no passage may have media. With one nobody else computes batches.
        """
        assert n_ctx <= pooler.n_batch or pooler.splits, "a passage must fit into one batch"
        self._pooler = pooler
        self._n_ctx = n_ctx
        self._n_rows = min(n_rows, pooler.n_batch)
        self._n_brief = max(1, self._n_rows // BRIEF)
        self._clock = clock
        self._waiting = Waiting()
        self._begun: tuple[Passage, int] | None = None  # a passage of several batches, and how much of it is computed
        self._begun_jobs: list[Job] = []  # that somebody else computes
        self._media = MediaPassages(encoder)
        self._is_media_next = False  # where both kinds can be computed they take turns
        self._seconds_per_row = 0.0
        self.done = Activity()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to compute. Passages with media may wait for their rows."""
        return not (self._begun is not None or self.has_waiting or self._begun_jobs or self._media.is_ready)

    @property
    def has_waiting(self) -> bool:
        """Whether passages wait that are in no batch yet."""
        return len(self._waiting) > 0

    @property
    def is_big_next(self) -> bool:
        """Whether the next batch is a big request's, which means that no small request waits."""
        return self._waiting.is_big_next

    @property
    def is_brief_next(self) -> bool:
        """Whether a small request is next, whose batch takes no longer than a brief one."""
        return 0 < self._waiting.n_next <= self._n_brief and not self.is_big_next

    def submit(self, passages: Seq[Passage], n_left: int, with_media: Seq[MediaPassage] = ()) -> list[Failed]:
        """Queue passages of one request, which has `n_left` yet to be embedded, with these.

        Where one of them cannot be embedded the request fails as a whole, and nothing of it stays here.
        """
        everything: list[Passage | MediaPassage] = [*passages, *with_media]
        for passage in everything:
            error = self._check(passage)
            if error is not None:
                return self._fail(passage, error)
        self._waiting.add(passages, n_left)
        self._media.add(with_media)
        return []

    def abort(self, request_id: str) -> None:
        """Forget a request; it gets no further vector. Unknown ids are ignored."""
        self._waiting.remove(request_id)
        for job in self._begun_jobs:
            job.dropped.add(request_id)
        if self._begun is not None and self._begun[0].request_id == request_id:
            self._begun = None
            self._pooler.forget()
        if self._media.remove(request_id):
            self._pooler.forget()

    def _fail(self, passage: Passage | MediaPassage, error: errors.LlamaboxError) -> list[Failed]:
        """A passage cannot be embedded: its request ends."""
        self.abort(passage.request_id)
        return [Failed(passage.request_id, passage.index, errors.to_wire(error))]

    def step(self, seconds: float | None = None) -> list[Vector | Failed]:
        """Compute one batch. It is as small as it must be to take `seconds` at most, but never empty."""
        n_rows = self._n_rows
        if seconds is not None and self._seconds_per_row:
            n_rows = max(1, min(n_rows, int(seconds / self._seconds_per_row)))
        if self._begun is None and self._media.is_ready and (self._takes_media or not self.has_waiting):
            return self._media_part(n_rows)
        if self._begun is None:
            self._is_media_next = True
            room = TiledRoom(n_rows) if self._pooler.is_tiled else PlainRoom(n_rows)
            taken = self._waiting.take(room, n_rows, self._pooler.n_sequences)
            if not taken:
                return []
            first, _ = taken[0]
            if len(first.tokens) <= n_rows or not self._pooler.splits:
                job = self._lay_out(taken, room.n_rows)
                return self.finish(job, compute(job, self._pooler, self._clock))
            self._begun = first, 0
        return self._part(*self._begun, n_rows)

    @property
    def _takes_media(self) -> bool:
        """Whether media have their turn, before texts."""
        return self._media.begun is not None or self._is_media_next

    def begin(self, *, brief: bool = False) -> Job | None:
        """Take out a batch for somebody else to compute; `finish` must follow. None where nothing waits.

        `brief`: of an eighth of the rows that are best, because somebody may be about to wait for it. Not for poolers
        that split.
        """
        is_big = self.is_big_next
        n_rows = self._n_brief if brief else self._n_rows
        room = TiledRoom(n_rows) if self._pooler.is_tiled else PlainRoom(n_rows)
        taken = self._waiting.take(room, n_rows, self._pooler.n_sequences)
        if not taken:
            return None
        job = self._lay_out(taken, room.n_rows)
        job.is_big, job.is_brief = is_big, brief
        self._begun_jobs.append(job)
        return job

    def finish(self, job: Job, outcome: Outcome) -> list[Vector | Failed]:
        """What came of a batch."""
        if job in self._begun_jobs:
            self._begun_jobs.remove(job)
        self._count(outcome.seconds, len(job.batch), len(job.taken), job.n_tokens)
        made: list[Vector | Failed] = []
        for i, (one, _) in enumerate(job.taken):
            if one.request_id in job.dropped:
                continue
            if outcome.error is not None:
                made.append(Failed(one.request_id, one.index, outcome.error))
            else:
                made.append(Vector(one.request_id, one.index, len(one.tokens), outcome.data[i]))
        return made

    def activity(self, engine: Activity) -> Activity:
        """The engine's, with what was done here on top."""
        done = self.done.after(engine)
        begun = {one.request_id for job in self._begun_jobs for one, _ in job.taken} - self._waiting.requests
        begun |= {one.passage.request_id for one in (self._media.begun,) if one is not None} - self._waiting.requests
        done.n_processing = engine.n_processing + (self._begun is not None) + len(begun)
        done.n_waiting = engine.n_waiting + len(self._waiting.requests | self._media.requests)
        done.n_resident = engine.n_resident
        return done

    def _check(self, passage: Passage | MediaPassage) -> errors.RequestError | None:
        n_tokens = len(passage.tokens) if isinstance(passage, Passage) else passage.n_cells
        if not n_tokens:
            return errors.InvalidRequest(f"{passage.name} has no tokens; it must not be empty")
        if n_tokens > self._n_ctx:
            return too_long(passage.name, n_tokens, self._n_ctx)
        return None

    def _lay_out(self, taken: list[tuple[Passage, int]], n_rows: int) -> Job:
        """A batch of whole passages, each at its first row. Rows between and behind them are filled, up to `n_rows`."""
        batch = Batch()
        n_filled = 0
        for seq_id, (passage, start) in enumerate(taken):
            n_filled = self._fill(batch, start, n_filled)
            batch.add(Run(seq_id, 0, passage.tokens, len(passage.tokens)))
        n_filled = self._fill(batch, n_rows, n_filled)
        return Job(taken, batch, len(batch) - n_filled)

    def _fill(self, batch: Batch, n_rows: int, n_filled: int) -> int:
        """Fill the batch up to `n_rows`. It has `n_filled` filling rows; returns how many it has then."""
        n_more = n_rows - len(batch)
        if n_more:
            batch.add(Run(self._pooler.n_sequences, n_filled, (self._pooler.filler,) * n_more, n_more))
        return n_filled + n_more

    def _part(self, passage: Passage, start: int, n_rows: int) -> list[Vector | Failed]:
        """Compute the next part of a passage that is longer than a batch."""
        tokens = passage.tokens[start : start + n_rows]
        batch = Batch()
        n_tokens = batch.add(Run(0, start, tokens, len(tokens)))
        stop = start + n_tokens
        error = self._execute(batch, 1, n_tokens)
        if error is None and stop < len(passage.tokens):
            self._begun = passage, stop
            return []
        self._begun = None
        try:
            if error is not None:
                return [Failed(passage.request_id, passage.index, error)]
            data = self._pooler.vector(0, range(n_tokens))
            return [Vector(passage.request_id, passage.index, len(passage.tokens), data)]
        finally:
            self._pooler.forget()

    def _media_part(self, n_rows: int) -> list[Vector | Failed]:
        """Compute the next part of a passage with media, or tell of one whose rows will never come."""
        for failed, reason in self._media.failed():
            return [*self._fail(failed, reason)]
        begun = self._media.begin()
        assert begun is not None, "nothing is ready"
        passage, batch = begun.passage, begun.next_batch(n_rows)
        error = self._execute(batch, 1, len(batch))
        if error is not None:
            self._end_media()
            return [Failed(passage.request_id, passage.index, error)]
        if not begun.computed(len(batch), self._pooler.vector(0, range(len(batch)))):
            return []
        data = self._pooler.joined(begun.parts)
        self._end_media()
        return [Vector(passage.request_id, passage.index, passage.n_cells, data)]

    def _end_media(self) -> None:
        self._media.end()
        self._pooler.forget()
        self._is_media_next = False

    def _execute(self, batch: Batch, n_passages: int, n_tokens: int) -> dict[str, object] | None:
        """Run the batch; returns why it could not be computed."""
        start = self._clock()
        try:
            self._pooler.execute(batch)
        except errors.DecodeError as error:
            return errors.to_wire(errors.ServerFault(f"decode failed: {error.message}"))
        self._count(self._clock() - start, len(batch), n_passages, n_tokens)
        return None

    def _count(self, seconds: float, n_rows: int, n_passages: int, n_tokens: int) -> None:
        # The latest batch counts most: a neighbour on this machine, or a longer passage, changes the time of a row.
        per_row = seconds / n_rows
        self._seconds_per_row = per_row if not self._seconds_per_row else (self._seconds_per_row + per_row) / 2
        self.done.n_decode += 1
        self.done.n_busy += n_passages
        self.done.n_prompt += n_tokens
        self.done.prompt_ms += seconds * 1e3
