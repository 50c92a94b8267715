"""The encoder's thread and the desk before it: nothing is encoded twice, nobody is mistaken, nothing stays for ever."""

from __future__ import annotations

import os
import queue
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from llamabox.bindings.media.chunk import ChunkRows, MediaChunk
from llamabox.engine.events import Activity
from llamabox.engine.request import Media, Request
from llamabox.errors import EncodeError, ServerFault
from llamabox.machine.niceness import BESIDE_DECODES, MOST
from llamabox.wire.signs.pulse import Pulse
from llamabox.workers.text.media.content import Content, PreparedBytes, segments
from llamabox.workers.text.media.desk import LATELY, EncodingDesk
from llamabox.workers.text.media.encoder import MOST_CELLS, EncoderThread, EncodingsDone

WITHIN = 60.0
"""Seconds after which a test that waits for an event has failed."""

N_EMBD = 2
LARGE = 1 << 30


@dataclass
class Chunk:
    """As much of a MediaChunk as is looked at."""

    name: str
    n_cells: int = 4
    n_positions: int = 4
    is_causal: bool = True
    is_sound: bool = False
    n_bytes: int = 64
    is_open: bool = True

    @property
    def key(self) -> bytes:
        return self.name.encode()

    @property
    def shape(self) -> bytes:
        return bytes((self.n_cells % 256, self.n_positions, self.is_sound))

    def close(self) -> None:
        self.is_open = False


@dataclass
class Projector:
    """Encodes what the test lets it, one call after the other."""

    calls: list[list[str]] = field(default_factory=list)
    may_go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    begun: queue.SimpleQueue[list[str]] = field(default_factory=queue.SimpleQueue)
    broken: set[str] = field(default_factory=set)
    niceness: int | None = None  # of the thread that encoded last

    def encode(self, chunks: Sequence[MediaChunk]) -> list[ChunkRows]:
        names = [cast(Any, chunk).name for chunk in chunks]
        assert all(cast(Any, chunk).is_open for chunk in chunks), "its pixels are gone"
        self.calls.append(names)
        self.niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        self.begun.put(names)
        assert self.may_go.acquire(timeout=WITHIN)
        if self.broken & set(names):
            raise EncodeError("encoding an image failed")
        return [
            ChunkRows(np.full((chunk.n_cells, N_EMBD), rows_of(name)))
            for chunk, name in zip(chunks, names, strict=True)
        ]


def rows_of(name: str) -> float:
    return float(zlib.crc32(name.encode()) % 1009)


class Studio:
    """A desk over a thread and a projector; requests have chunks by name."""

    def __init__(self, budget: int = LARGE, pulse: Pulse | None = None) -> None:
        self.projector = Projector()
        self.done: queue.SimpleQueue[EncodingsDone] = queue.SimpleQueue()
        nobody = cast(Any, None)
        thread = EncoderThread(self.projector, self.done.put, pulse or Pulse(nobody, 0.0))
        thread.start()
        self.now = 100.0
        self.desk = EncodingDesk(thread, budget, lambda: self.now)
        self.chunks: list[Chunk] = []

    def take(self, request_id: str, *chunks: Chunk) -> list[Media]:
        """A request with these chunks. Returns what it may want."""
        self.chunks += chunks
        prompt, contents = segments(cast(list[MediaChunk], chunks), PreparedBytes())
        self.desk.take(request_id, prompt, contents)
        return [part for part in prompt if isinstance(part, Media)]

    def want(self, request_id: str, *chunks: Chunk) -> list[Media]:
        media = self.take(request_id, *chunks)
        self.desk.want((request_id, 0), media)
        return media

    def end(self, request_id: str) -> None:
        self.desk.want((request_id, 0), ())
        self.desk.forget(request_id)

    def begun(self) -> list[str]:
        """What the encoder begins next, or is at."""
        return self.projector.begun.get(timeout=WITHIN)

    def finish(self) -> None:
        """Let one call of the projector end, and tell the desk."""
        self.projector.may_go.release()
        self.desk.finished(self.done.get(timeout=WITHIN))

    def counts(self) -> tuple[int, int, int]:
        """Encoded, hits, and waiting."""
        activity = Activity()
        self.desk.count(activity)
        return activity.n_encoded, activity.n_encode_hits, activity.n_encoding


@pytest.fixture
def studio() -> Iterator[Studio]:
    made = Studio()
    yield made
    made.projector.may_go.release(99)
    made.desk.close()


def test_the_encoder_was_busy_lately_from_its_first_work_until_a_while_behind_the_last(studio: Studio) -> None:
    assert not studio.desk.was_busy_lately()
    studio.want("a", Chunk("cat"))
    assert studio.desk.was_busy_lately()
    studio.now += 10
    assert studio.desk.was_busy_lately()
    studio.begun()
    studio.finish()
    assert studio.desk.was_busy_lately()
    studio.now += LATELY / 2
    assert studio.desk.was_busy_lately()
    studio.now += LATELY
    assert not studio.desk.was_busy_lately()


def test_equal_content_is_encoded_once_for_all_who_want_it(studio: Studio) -> None:
    [media] = studio.want("a", Chunk("cat"))
    assert studio.begun() == ["cat"]
    studio.want("b", Chunk("cat"))
    assert not studio.desk.is_ready(media)
    studio.finish()
    assert studio.desk.is_ready(media)
    studio.end("a")
    studio.end("b")
    assert studio.want("c", Chunk("cat")) == [media]
    assert studio.desk.is_ready(media)
    assert studio.projector.calls == [["cat"]]
    assert studio.counts() == (1, 2, 0)


def test_what_differs_is_never_mistaken(studio: Studio) -> None:
    cat, dog = studio.want("a", Chunk("cat"), Chunk("dog"))
    studio.begun()
    while not (studio.desk.is_ready(cat) and studio.desk.is_ready(dog)):
        studio.finish()
    values = [studio.desk.rows(media).embeddings[0, 0] for media in (cat, dog)]
    assert values == [rows_of("cat"), rows_of("dog")]


def test_pictures_of_one_size_go_together_and_all_others_in_the_order_they_came(studio: Studio) -> None:
    studio.want("first", Chunk("first", n_cells=1))
    studio.begun()
    studio.want("a", Chunk("a"), Chunk("tall", n_positions=2))
    studio.want("b", Chunk("word", is_sound=True), Chunk("b"))
    studio.want("c", Chunk("c"), Chunk("large", n_cells=MOST_CELLS), Chunk("larger", n_cells=MOST_CELLS))
    for _ in range(6):
        studio.finish()
    assert studio.projector.calls == [["first"], ["a", "b", "c"], ["tall"], ["word"], ["large"], ["larger"]]


def test_an_abort_takes_back_what_has_not_begun_unless_another_wants_it(studio: Studio) -> None:
    studio.want("first", Chunk("first"))
    studio.begun()
    studio.want("a", Chunk("gone", n_cells=5), Chunk("shared", n_cells=6))
    studio.want("b", Chunk("shared", n_cells=6))
    assert studio.counts()[2] == 3
    studio.end("a")
    assert studio.counts()[2] == 2
    studio.finish()
    studio.finish()
    assert studio.projector.calls == [["first"], ["shared"]]
    assert not any(chunk.is_open for chunk in studio.chunks if chunk.name == "gone")


def test_what_has_begun_ends_for_nobody_and_is_kept(studio: Studio) -> None:
    studio.want("a", Chunk("cat"))
    studio.begun()
    studio.end("a")
    [chunk] = studio.chunks
    assert chunk.is_open, "it is being encoded"
    studio.finish()
    assert not chunk.is_open
    [media] = studio.want("b", Chunk("cat"))
    assert studio.desk.is_ready(media)


def test_a_failure_is_that_of_all_who_want_it_now_and_of_nobody_later(studio: Studio) -> None:
    studio.projector.broken.add("cat")
    cat, dog = studio.want("a", Chunk("cat", n_cells=3), Chunk("dog"))
    studio.begun()
    studio.want("b", Chunk("cat", n_cells=3))
    studio.finish()
    assert isinstance(studio.desk.error(cat), ServerFault)
    assert studio.desk.error(dog) is None
    studio.end("a")
    assert studio.desk.error(cat) is not None
    studio.end("b")
    assert studio.desk.error(cat) is None
    studio.projector.broken.clear()
    studio.want("c", Chunk("cat", n_cells=3))
    while not studio.desk.is_ready(cat):  # the dog may have begun before nobody wanted it any more
        studio.finish()


def test_rows_are_bounded_but_for_those_that_somebody_wants() -> None:
    chunk_bytes = 4 * N_EMBD * 8
    studio = Studio(budget=2 * chunk_bytes)
    wanted = [studio.want(name, Chunk(name))[0] for name in "abcd"]
    while not all(map(studio.desk.is_ready, wanted)):
        studio.finish()
    for name in "abcd":
        studio.end(name)
    assert [studio.desk.is_ready(media) for media in wanted] == [False, False, True, True]
    studio.want("again", Chunk("c"))
    studio.end("again")
    studio.want("e", Chunk("e"))
    studio.finish()
    studio.end("e")
    assert [studio.desk.is_ready(media) for media in wanted] == [False, False, True, False]
    studio.desk.close()


def test_a_request_that_nobody_takes_leaves_nothing_open() -> None:
    chunks = [Chunk("cat"), Chunk("cat"), Chunk("dog")]
    prompt, contents = segments(cast(list[MediaChunk], chunks), PreparedBytes())
    assert [chunk.is_open for chunk in chunks] == [True, False, True]
    request = Request(request_id="a", prompt=prompt, contents=contents)
    del contents
    assert [chunk.is_open for chunk in chunks] == [True, False, True]
    del request
    assert not any(chunk.is_open for chunk in chunks)


def test_content_is_freed_once(studio: Studio) -> None:
    chunk = Chunk("cat")
    content = Content(cast(MediaChunk, chunk), PreparedBytes())
    content.close()
    chunk.is_open = True
    content.close()
    del content
    assert chunk.is_open


class Channel:
    def beat(self) -> None:
        """Nobody listens."""


def test_a_long_encoding_is_no_hang() -> None:
    seconds = [0.0]
    pulse = Pulse(cast(Any, Channel()), 8.0, lambda: seconds[0])
    studio = Studio(pulse=pulse)
    studio.want("a", Chunk("cat", n_cells=100))
    studio.begun()
    for _ in range(60):
        seconds[0] += 1.0
        assert pulse.stuck() is None
    for _ in range(60):
        seconds[0] += 1.0
        pulse.stuck()
    stuck = pulse.stuck()
    assert stuck is not None
    assert stuck.what == "the encoder"
    studio.finish()
    deadline = time.monotonic() + WITHIN
    while pulse.at_work and time.monotonic() < deadline:
        time.sleep(0.001)
    assert pulse.stuck() is None
    studio.desk.close()


def test_encoding_yields_to_decoding(studio: Studio) -> None:
    studio.want("r", Chunk("cat"))
    studio.begun()
    studio.finish()
    mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert studio.projector.niceness == min(mine + BESIDE_DECODES, MOST)


def test_closing_drops_what_waits(studio: Studio) -> None:
    studio.want("a", Chunk("cat"), Chunk("dog", n_cells=5))
    studio.begun()
    studio.projector.may_go.release()
    studio.desk.close()
    studio.desk.close()
    assert studio.projector.calls == [["cat"]]
