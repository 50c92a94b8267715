"""Many files at once, files that children die of, and clients that go away: what is held is bounded and given back."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from llamabox.engine.request import Picture
from llamabox.errors import InvalidRequest, ServerFault, Unavailable
from llamabox.machine.niceness import MOST
from llamabox.media import reader as reader_module
from llamabox.media.decoding.link import MEMORY
from llamabox.media.reader import MAX_HELD, NICENESS, MediaReader
from llamabox.media.source import MAX_SOURCES
from llamabox.quarantine.trial import Trial
from llamabox.wire.text_config import MediaInfo
from tests.media.files import BLUE, RED, bomb, file, plain, recording, tone
from tests.media.reading import ALL, FIELD, CountedRoom, pixels, read, refusal, source

ROOT = Path(__file__).parents[2]

SMALL = file(plain("RGB", RED, (3, 2)))


@pytest.fixture
def own() -> Iterator[MediaReader]:
    """A reader whose children a test may do something to."""
    made = MediaReader()
    yield made
    asyncio.run(made.close())


def small(n: int) -> bytes:
    """The same picture in the n-th file: a file that comes again is not decoded again."""
    return SMALL + bytes([n])


def run(work: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(limited())


def slow(trial: Trial, seconds: float = 0.05) -> None:
    """Have each question be more than a child may work on."""
    trial.limits = dataclasses.replace(trial.limits, cpu_seconds=seconds)


SLOW = file(plain("1", 1, (8192, 8192)))


def test_media_come_back_in_order(reader: MediaReader) -> None:
    async def work() -> None:
        sizes = [(1 + i, 40 - i) for i in range(40)]
        sent = [source(file(plain("RGB", RED, size)), "image", f"images[{i}]") for i, size in enumerate(sizes)]
        room = CountedRoom()
        found = await reader.read([*sent, source(recording(tone(16_000, 0.1), 16_000), "audio")], ALL, room)
        pictures = [one for one in found if isinstance(one, Picture)]
        assert [(one.width, one.height) for one in pictures] == sizes
        assert len(found) == 41
        assert room.n_bytes == sum(3 * width * height for width, height in sizes) + 4 * 1600
        assert await reader.read([], ALL, room) == []

    run(work())


def test_the_first_wrong_one_is_named_and_nothing_stays_held(reader: MediaReader) -> None:
    async def work() -> None:
        room = CountedRoom()
        sent = [source(SMALL, "image", f"images[{i}]") for i in range(10)]
        sent[3] = source(b"no picture", "image", "images[3]")
        sent[7] = source(b"no picture either", "image", "images[7]")
        with pytest.raises(InvalidRequest) as caught:
            await reader.read(sent, ALL, room)
        assert caught.value.field in ("images[3]", "images[7]")
        assert room.n_bytes == 0

    run(work())


def test_what_the_model_cannot_take_is_refused(reader: MediaReader) -> None:
    sound = recording(tone(16_000, 0.1), 16_000)
    sees = MediaInfo(has_vision=True, has_audio=False)
    hears = MediaInfo(has_vision=False, has_audio=True, audio_rate=16_000)
    assert "is a recording, which the model cannot take" in refusal(reader, sound, "audio", sees)
    assert "is a picture, which the model cannot take" in refusal(reader, SMALL, "image", hears)
    assert "is a recording (WAV), not a picture" in refusal(reader, sound, None, sees)
    assert isinstance(read(reader, SMALL, None, sees), Picture)


def test_media_of_one_request_are_bounded(reader: MediaReader, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        room = CountedRoom()
        with pytest.raises(InvalidRequest, match=rf"images\[{MAX_SOURCES}\].*may have {MAX_SOURCES} media"):
            await reader.read([source(SMALL, "image", f"images[{i}]") for i in range(MAX_SOURCES + 1)], ALL, room)
        monkeypatch.setattr(reader_module, "MAX_HELD", 1 << 20)
        large = file(plain("RGB", RED, (512, 512)))
        for sent in ([large] * 3, [large + bytes([i]) for i in range(3)]):
            with pytest.raises(InvalidRequest, match="the media of one request may hold 1 MiB"):
                await reader.read([source(data, "image") for data in sent], ALL, room)
            assert room.n_bytes == 0
            assert room.most <= 1 << 20

    assert MAX_HELD == 256 << 20
    run(work())


def test_media_of_all_requests_are_bounded(reader: MediaReader) -> None:
    class FullRoom(CountedRoom):
        def grow(self, n_bytes: int) -> None:
            if self.n_bytes + n_bytes > 1000:
                raise Unavailable("full", retry_after=2)
            super().grow(n_bytes)

    async def work() -> None:
        room = FullRoom()
        with pytest.raises(Unavailable):
            await reader.read([source(file(plain("RGB", RED, (10 + i, 10)))) for i in range(5)], ALL, room)
        assert room.n_bytes == 0

    run(work())


def test_a_child_that_works_too_long_fails_its_file_alone_and_is_replaced(own: MediaReader) -> None:
    assert isinstance(read(own, small(0)), Picture)
    pids = {child.pid for child in own.lane.children if child.pid is not None}
    for child in own.lane.children:
        slow(child)
    assert "cannot be decoded: it ran for more than 0.05 s" in refusal(own, SLOW, "image")
    for child in own.lane.children:
        slow(child, 15)
    assert isinstance(read(own, small(1)), Picture)
    assert pids.isdisjoint(child.pid for child in own.lane.children)


def test_a_child_that_somebody_ended_is_replaced(own: MediaReader) -> None:
    """Whether it had died before it was asked, or dies now: no file is to blame."""
    for n in range(5):
        assert isinstance(read(own, small(n)), Picture)
        for child in own.lane.children:
            if child.pid is not None:
                os.kill(child.pid, signal.SIGKILL)


def test_a_picture_that_needs_more_memory_than_there_is(own: MediaReader) -> None:
    assert isinstance(read(own, small(0)), Picture)
    for child in own.lane.children:
        child.limits = dataclasses.replace(child.limits, memory=200 << 20)
        child.close()
    assert f"needs more than {MEMORY >> 20} MiB of memory" in refusal(own, file(plain("RGB", RED, (5000, 5000)), "BMP"))
    assert isinstance(read(own, small(1)), Picture)


def test_without_a_child_it_is_the_server_s_fault(own: MediaReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no client is told that its picture is wrong."""
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with pytest.raises(ServerFault, match="a process for it does not start"):
        read(own, SMALL)
    monkeypatch.delenv("PYTHONHOME")
    assert isinstance(read(own, SMALL), Picture)


def test_who_goes_away_leaves_no_work_behind(own: MediaReader) -> None:
    async def work() -> None:
        await own.read([source(SMALL)], ALL, CountedRoom())
        room = CountedRoom()
        going = asyncio.create_task(own.read([source(SLOW, field=f"images[{i}]") for i in range(8)], ALL, room))
        while not any(is_busy(child) for child in own.lane.children):
            await asyncio.sleep(0.005)
        going.cancel()
        await asyncio.wait([going])
        assert (going.cancelled(), room.n_bytes) == (True, 0)
        assert isinstance((await own.read([source(small(1))], ALL, room))[0], Picture)
        while any(is_busy(child) for child in own.lane.children):
            await asyncio.sleep(0.005)

    run(work())


def is_busy(child: Trial) -> bool:
    """Whether it holds a picture of some size just now."""
    if child.pid is None:
        return False
    try:
        status = Path(f"/proc/{child.pid}/status").read_text()
    except OSError:
        return False
    return "VmRSS:" in status and int(status.partition("VmRSS:")[2].split()[0]) > 100_000


def test_a_large_request_lets_others_have_their_turn(reader: MediaReader) -> None:
    """A small picture that comes later is not the last to be done."""

    async def work() -> None:
        large = file(plain("RGB", BLUE, (1500, 1500)))
        done: list[str] = []

        async def finish(name: str, n: int, data: bytes) -> None:
            sent = [source(data + bytes([i]), field=f"images[{i}]") for i in range(n)]
            await reader.read(sent, ALL, CountedRoom())
            done.append(name)

        first = asyncio.create_task(finish("large", 20, large))
        await asyncio.sleep(0)
        await asyncio.gather(first, finish("small", 1, SMALL))
        assert done == ["small", "large"]

    run(work())


def test_two_children_are_ready_from_the_start(own: MediaReader) -> None:
    asyncio.run(own.warm())
    assert sum(child.pid is not None for child in own.lane.children) == 2


def test_children_yield_to_decodes_and_those_beside_the_first_to_all(own: MediaReader) -> None:
    """On two processors one child shares that of a decode: it must not have it for a whole tick."""
    asyncio.run(own.warm())
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    found = [os.getpriority(os.PRIO_PROCESS, child.pid) for child in own.lane.children if child.pid is not None]
    assert found == [min(mine + NICENESS, MOST), MOST]


def test_a_reader_that_was_closed_has_no_children(own: MediaReader) -> None:
    assert isinstance(read(own, SMALL), Picture)
    pids = [child.pid for child in own.lane.children if child.pid is not None]
    asyncio.run(own.close())
    asyncio.run(own.close())
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_children_open_nothing_and_know_no_key(own: MediaReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_API_KEY", "secret")
    assert pixels(own, SMALL).shape == (2, 3, 3)
    (pid,) = [child.pid for child in own.lane.children if child.pid is not None]
    status = Path(f"/proc/{pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    limits = {line[:18].strip(): line[26:].split()[0] for line in Path(f"/proc/{pid}/limits").read_text().splitlines()}
    assert (limits["Max open files"], limits["Max file size"], limits["Max core file size"]) == ("1", "0", "0")
    assert limits["Max address space"] == str(MEMORY)
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()


READS = """
import sys
from llamabox.media.reader import MediaReader
from tests.media.reading import refusal
reader = MediaReader()
refusal(reader, sys.stdin.buffer.read())
reader.lane.close()
"""


def test_a_file_writes_nothing_into_the_log() -> None:
    """libmpg123 would tell of each frame that it cannot read."""
    mp3 = recording(tone(16_000, 1), 16_000, "MP3")
    damaged = mp3[:1500] + b"text" * 500 + mp3[1500:]
    command = [sys.executable, "-c", READS]
    done = subprocess.run(command, input=damaged, capture_output=True, check=True, cwd=ROOT, timeout=60)
    assert done.stderr == b""


def test_errors_name_the_field(reader: MediaReader) -> None:
    for data in (
        b"",
        b"?",
        "?",
        "data:,",
        bomb(50_000, 50_000),
        "file://a.png",
        "https://a.example/b.png",
        "ftp://a/b",
    ):
        assert FIELD in refusal(reader, data)
