"""Reading the media that requests name: their bytes are had here, and decoded in children (decoding/).

This process never looks into a file: it hands bytes on, and takes pixels or samples.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import weakref
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

from llamabox.checks import wrong
from llamabox.engine.request import Picture, Sound
from llamabox.machine import processors
from llamabox.machine.niceness import MOST
from llamabox.media.decoding.link import CPU_SECONDS, MAX_USEFUL_PIXELS, MEMORY, NOUNS, Unreadable, Wanted
from llamabox.media.desk import Room
from llamabox.media.errand import Errand, File
from llamabox.media.fetching.folder import SCHEME, MediaFolder
from llamabox.media.fetching.hosts import AllowedHosts
from llamabox.media.fetching.web import MAX_URL, Fetcher
from llamabox.media.kept import KeptMedia, key_of
from llamabox.media.source import MAX_SOURCES, ONE_TOO_MANY, MediaKind, MediaSource
from llamabox.quarantine.lane import Lane
from llamabox.quarantine.lines import pack
from llamabox.quarantine.trial import Limits
from llamabox.wire.text_config import MediaInfo

logger = logging.getLogger(__name__)

SANDBOX = "llamabox.media.decoding.sandbox"
"""The module that a child runs."""

NICENESS = 10
"""A large picture takes seconds, which would else be felt by the texts that are being generated. Children beside the
first one yield to all: of two on two processors one shares that of a decode, which waits for it a tick at a time.
"""

MAX_FILE = 25 << 20
"""Bytes of a file that is fetched, or read from the media folder. Those in a body are bounded by `--max-body`."""

MAX_HELD = 256 << 20
"""Bytes that one request's files and decoded media hold together: thirteen minutes of sound, or eighty pictures of one
megapixel. All requests together hold what `--max-bodies` allows."""

MAX_KEPT = 64 << 20
"""Bytes of decoded media that are kept for whoever sends the same file again."""

SHORT = 128 << 10
"""Bytes of a file whose digest is made on the event loop: it takes as long as the way to a thread and back."""

N_AT_ONCE = 4
"""Media of one request that are worked on at a time, so that others get their turns."""

N_WARM = 2
"""Children that start with the model. To start one takes half a second of a processor, which streams would feel."""

GREETING = b"GIF89a\1\0\1\0\x80\0\0\xff\xff\xff\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
"""A picture of one pixel: a child that decoded it is ready."""

T = TypeVar("T")


class MediaReader:
    """The MediaDesk of a server. Belongs to the event loop; a call that is cancelled ends what it began.

    Its children start when they are needed, and are replaced after a file that one died of.
    """

    def __init__(
        self,
        *,
        folder: str | None = None,
        hosts: AllowedHosts | None = None,
        max_side: int = 0,
        fetcher: Fetcher | None = None,
    ) -> None:
        """`folder` may be read from and `hosts` fetched from; None: none. `max_side` bounds pictures, 0: not at all."""
        n_children = max(2, min(8, len(processors.allowed()) // 4))
        limits = Limits(cpu_seconds=CPU_SECONDS, memory=MEMORY, niceness=NICENESS)
        self.lane = Lane(SANDBOX, n_children, limits, _greeting, beside=dataclasses.replace(limits, niceness=MOST))
        self._finalizer = weakref.finalize(self, self.lane.close)
        self._threads = ThreadPoolExecutor(n_children, thread_name_prefix="media")
        self._folder = None if folder is None else MediaFolder(folder)
        self._fetcher = fetcher or (Fetcher(hosts) if hosts else None)
        self._max_side = max_side
        self._kept = KeptMedia(MAX_KEPT)
        self._is_closed = False

    async def warm(self) -> None:
        """Start children, so that the first pictures do not wait for them, nor streams beside these.

        Failing is left to the requests.
        """
        await asyncio.wrap_future(self._threads.submit(self._start, N_WARM))

    async def read(self, sources: Sequence[MediaSource], info: MediaInfo, room: Room) -> list[Picture | Sound]:
        """As MediaDesk has it."""
        if len(sources) > MAX_SOURCES:
            raise wrong(sources[MAX_SOURCES].field, ONE_TOO_MANY)
        held = _Held(room)
        turns = asyncio.Semaphore(N_AT_ONCE)

        async def one(source: MediaSource) -> Picture | Sound:
            async with turns:
                return await self._read(source, self._wanted(source, info), held)

        distinct: dict[object, MediaSource] = {}
        for source in sources:
            distinct.setdefault(_key(source), source)
        try:
            found = dict(zip(distinct, await _all([one(source) for source in distinct.values()]), strict=True))
            media = [found[_key(source)] for source in sources]
            # The worker is sent each as often as it stands there.
            held.grow(sum(one.n_bytes for one in media) - sum(one.n_bytes for one in found.values()))
        except Unreadable as error:
            held.release()
            raise wrong(sources[-1].field, str(error)) from error
        except BaseException:
            held.release()
            raise
        return media

    async def fit(self, source: MediaSource, width: int, height: int, room: Room, *, as_mask: bool = False) -> Picture:
        """A picture at this size, whatever its own is. A mask has one channel, white where something is to be drawn.

        Raises as `read` does.
        """
        wanted = Wanted(kinds=("image",), exactly=(width, height), as_mask=as_mask)
        held = _Held(room)
        try:
            picture = await self._read(source, wanted, held)
        except BaseException:
            held.release()
            raise
        assert isinstance(picture, Picture)
        return picture

    async def close(self) -> None:
        """End the children. Idempotent."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._fetcher is not None:
            self._fetcher.close()
        await asyncio.to_thread(self.lane.close)

    def _wanted(self, source: MediaSource, info: MediaInfo) -> Wanted:
        takes: dict[MediaKind, bool] = {"image": info.has_vision, "audio": info.has_audio}
        kinds: tuple[MediaKind, ...] = tuple(kind for kind, has in takes.items() if has)
        if source.kind is not None:
            if source.kind not in kinds:
                raise wrong(source.field, f"is {NOUNS[source.kind]}, which the model cannot take")
            kinds = (source.kind,)
        sides = [side for side in (self._max_side, source.max_side, info.max_image_side) if side]
        return Wanted(
            kinds=kinds,
            rate=info.audio_rate,
            max_side=min(sides, default=0),
            max_pixels=min(info.max_image_pixels or MAX_USEFUL_PIXELS, MAX_USEFUL_PIXELS),
        )

    async def _read(self, source: MediaSource, wanted: Wanted, held: _Held) -> Picture | Sound:
        try:
            file, n_bytes = await self._file(source, held)
            try:
                decoded = await self._decoded(file, wanted)
            finally:
                held.shrink(n_bytes)
            held.grow(decoded.n_bytes)
            return decoded
        except Unreadable as error:
            raise wrong(source.field, str(error)) from error

    async def _file(self, source: MediaSource, held: _Held) -> tuple[File, int]:
        """The file or the text that it is written in, and how many bytes more than the body are held for it."""
        data = source.data
        if isinstance(data, bytes):
            return data, 0
        match data[:32].lstrip().lower():
            case start if start.startswith(("http://", "https://")):
                if self._fetcher is None:
                    raise Unreadable(
                        "is a URL, and this server fetches none unless it is started with --media-url; send the file "
                        "in base64 or as a data URI"
                    )
                fetched = await self._fetcher.fetch(data.strip(), held, MAX_FILE)
                return fetched, len(fetched)
            case start if start.startswith(SCHEME):
                if self._folder is None:
                    raise Unreadable(
                        "is a file's URL, and this server reads no files unless it is started with --media-path"
                    )
                found = await asyncio.to_thread(self._folder.read, data.strip(), MAX_FILE)
                held.grow(len(found))
                return found, len(found)
        return data, 0

    async def _decoded(self, file: File, wanted: Wanted) -> Picture | Sound:
        is_short = len(file) <= SHORT
        key = key_of(file, wanted) if is_short else await asyncio.to_thread(key_of, file, wanted)
        if (known := self._kept.find(key)) is not None:
            return known
        errand = Errand(wanted, file)
        work = self._threads.submit(errand.run, self.lane)
        waiting = asyncio.wrap_future(work)
        work.add_done_callback(lambda _: self._start() if errand.killed_its_child else None)
        try:
            decoded = await waiting
        except asyncio.CancelledError:
            errand.abort()
            raise
        self._kept.keep(key, decoded)
        return decoded

    def _start(self, n: int = 1) -> None:
        """Have so many children that are ready. Blocks."""
        if not self._is_closed:
            with ExitStack() as taken:
                for child in [taken.enter_context(self.lane.child()) for _ in range(n)]:
                    child.start()


class _Held:
    """What one request's media hold: files while they are read, and what came of them."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._n_bytes = 0

    def grow(self, n_bytes: int) -> None:
        """Raises Unreadable beyond the bound of one request, Unavailable beyond that of all."""
        if self._n_bytes + n_bytes > MAX_HELD:
            raise Unreadable(
                f"is too much: the media of one request may hold {MAX_HELD >> 20} MiB when they are decoded; send "
                "fewer or smaller ones"
            )
        self._room.grow(n_bytes)
        self._n_bytes += n_bytes

    def shrink(self, n_bytes: int) -> None:
        self._room.shrink(n_bytes)
        self._n_bytes -= n_bytes

    def release(self) -> None:
        self.shrink(self._n_bytes)


def _greeting() -> bytes:
    return pack(dataclasses.asdict(Wanted(kinds=("image",)))) + GREETING


def _key(source: MediaSource) -> object:
    """Equal for sources that need to be read once alone: the same URL, mostly. Long texts are not compared."""
    if len(source.data) > MAX_URL:
        return source.field
    return source.kind, source.data, source.max_side


async def _all(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order. The first failure, or a cancellation, ends the others and waits for their end."""
    if len(work) == 1:  # as mostly: no task is made for it
        return [await work[0]]
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = next((task for task in tasks if task.done() and task.exception() is not None), None)
        if failed is not None:
            failed.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [task.result() for task in tasks]
