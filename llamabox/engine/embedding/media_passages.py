"""Passages with pictures or sound: they wait for their rows, and are computed one at a time, piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as a_field

from llamabox.engine.batch import Batch, MediaRows, Run
from llamabox.engine.embedding.passages import name_of
from llamabox.engine.request import Media, Prompt, n_cells
from llamabox.engine.seams import Encoder
from llamabox.errors import LlamaboxError

AHEAD = 2048
"""Cells of media that are asked for ahead of what is computed: enough to be encoded together, and a bound on rows."""


@dataclass(frozen=True, slots=True)
class MediaPassage:
    """A prompt with media to make a vector of; `index` is its place in the request's `field`."""

    request_id: str
    index: int
    prompt: Prompt
    contents: Mapping[Media, object] = a_field(repr=False)  # what an Encoder makes rows of
    field: str = "input"

    @property
    def name(self) -> str:
        """The beginning of an error about this passage."""
        return name_of(self.field, self.index)

    @property
    def key(self) -> tuple[str, int]:
        """What the encoder calls it."""
        return self.request_id, self.index

    @property
    def n_cells(self) -> int:
        return n_cells(self.prompt)

    @property
    def chunks(self) -> list[Media]:
        return [segment for segment in self.prompt if isinstance(segment, Media)]


@dataclass(slots=True, eq=False)
class Begun:
    """A passage that is being computed."""

    passage: MediaPassage
    parts: list[tuple[int, bytes]] = a_field(default_factory=list)  # cells and vector of each batch so far
    n_segments: int = 0  # computed in full
    n_computed: int = 0  # cells of the segment behind these
    position: int = 0  # at which that segment begins

    def next_batch(self, n_rows: int) -> Batch:
        """The next cells, of one segment: `n_rows` at most, but a chunk that is not causal in full."""
        segment = self.passage.prompt[self.n_segments]
        start = self.n_computed
        is_whole = isinstance(segment, Media) and not segment.is_causal
        stop = segment.n_cells if is_whole else min(segment.n_cells, start + n_rows)
        batch = Batch()
        if isinstance(segment, Media):
            batch.add(Run(0, self.position, MediaRows(segment, start, stop), stop - start))
        else:
            batch.add(Run(0, self.position + start, segment.tokens[start:stop], stop - start))
        return batch

    def computed(self, n_rows: int, vector: bytes) -> bool:
        """The batch of so many rows gave this vector. Returns whether it was the last one."""
        self.parts.append((n_rows, vector))
        self.n_computed += n_rows
        segment = self.passage.prompt[self.n_segments]
        if self.n_computed == segment.n_cells:
            self.position += segment.n_positions if isinstance(segment, Media) else segment.n_cells
            self.n_segments, self.n_computed = self.n_segments + 1, 0
        return self.n_segments == len(self.passage.prompt)


class MediaPassages:
    """The passages with media that wait, first come, first served. Owned by the engine's thread.

    A passage is begun once all of its rows are there: texts go on until then.
    """

    def __init__(self, encoder: Encoder | None) -> None:
        """Without an encoder there are none."""
        self._encoder = encoder
        self._waiting: dict[tuple[str, int], MediaPassage] = {}
        self._asked: dict[tuple[str, int], MediaPassage] = {}  # the first of them, whose rows are on their way
        self.begun: Begun | None = None

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def requests(self) -> set[str]:
        """The requests whose passages wait."""
        return {request_id for request_id, _ in self._waiting}

    @property
    def is_ready(self) -> bool:
        """Whether one is begun, may begin, or has failed: there is something to do."""
        return self.begun is not None or any(map(self._is_settled, self._asked.values()))

    def add(self, passages: Iterable[MediaPassage]) -> None:
        for passage in passages:
            assert self._encoder is not None, "a passage with media for a model that takes none"
            self._encoder.take(passage.request_id, passage.prompt, passage.contents)
            self._waiting[passage.key] = passage
        self._ask()

    def remove(self, request_id: str) -> bool:
        """Forget a request's passages. Returns whether one of them was begun."""
        was_begun = self.begun is not None and self.begun.passage.request_id == request_id
        if was_begun:
            self._let_go()
        found = [key for key in self._waiting if key[0] == request_id]
        for key in found:
            del self._waiting[key]
            if self._asked.pop(key, None) is not None and self._encoder is not None:
                self._encoder.want(key, ())
        if found:
            self._forget_if_done(request_id)
            self._ask()
        return was_begun

    def failed(self) -> Iterator[tuple[MediaPassage, LlamaboxError]]:
        """The passages whose rows will never come, and why. Their requests must be removed."""
        for passage in list(self._asked.values()):
            if (error := self._error(passage)) is not None:
                yield passage, error

    def begin(self) -> Begun | None:
        """Begin the first passage whose rows are there, unless one is begun. None where there is none."""
        if self.begun is None:
            passage = next((one for one in self._asked.values() if self._has_rows(one)), None)
            if passage is not None:
                del self._waiting[passage.key]
                self.begun = Begun(passage)
        return self.begun

    def end(self) -> None:
        """The passage that was begun has its vector."""
        self._let_go()
        self._ask()

    def _let_go(self) -> None:
        assert self.begun is not None
        assert self._encoder is not None
        passage, self.begun = self.begun.passage, None
        del self._asked[passage.key]
        self._encoder.want(passage.key, ())
        self._forget_if_done(passage.request_id)

    def _forget_if_done(self, request_id: str) -> None:
        is_begun = self.begun is not None and self.begun.passage.request_id == request_id
        if self._encoder is not None and not is_begun and request_id not in self.requests:
            self._encoder.forget(request_id)

    def _ask(self) -> None:
        """Have the rows of the first passages made."""
        n_asked = sum(segment.n_cells for passage in self._asked.values() for segment in passage.chunks)
        for key, passage in self._waiting.items():
            if n_asked >= AHEAD:
                return
            if key not in self._asked:
                assert self._encoder is not None
                self._asked[key] = passage
                n_asked += sum(media.n_cells for media in passage.chunks)
                self._encoder.want(key, tuple(dict.fromkeys(passage.chunks)))

    def _is_settled(self, passage: MediaPassage) -> bool:
        return self._has_rows(passage) or self._error(passage) is not None

    def _has_rows(self, passage: MediaPassage) -> bool:
        return self._encoder is not None and all(map(self._encoder.is_ready, passage.chunks))

    def _error(self, passage: MediaPassage) -> LlamaboxError | None:
        assert self._encoder is not None
        return next((error for media in passage.chunks if (error := self._encoder.error(media)) is not None), None)
