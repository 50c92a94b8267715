"""Thousands of damaged files, through real children: each is read or refused, and whoever dies of one is replaced."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamabox.errors import InvalidRequest
from llamabox.media.reader import MediaReader
from tests.media.files import GOOD, palette, recording, tone
from tests.media.reading import ALL, FIELD, CountedRoom, read, source

BATCH = 20
N_FILES = 2_000
SOME_MIB = 300
"""More than a child of small files ever holds; a leak of some kilobytes a file would go beyond."""


@cache
def files() -> list[bytes]:
    pictures = [make() for name, make in GOOD.items() if name != "a long comment"]
    sounds = [
        recording(tone(16_000, 0.2), 16_000, kind, subtype)
        for kind, subtype in (
            *(("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("WAV", "GSM610"), ("FLAC", "PCM_16")),
            *(("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)),
        )
    ]
    return [*pictures, palette(0), *sounds]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good file in which bytes are changed, cut out, doubled, or put in from another."""
    data = bytearray(draw(st.sampled_from(files())))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, min(len(data), draw(st.sampled_from([64, 512, 1 << 20])))))
        length = draw(st.integers(1, 16))
        match draw(st.sampled_from(["change", "change", "flip", "cut", "double", "graft", "end"])):
            case "change":
                data[at : at + length] = draw(st.binary(min_size=length, max_size=length))
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at : at + length]
            case "double":
                data[at:at] = data[at : at + 64 * length]
            case "graft":
                other = draw(st.sampled_from(files()))
                data[at:at] = other[at : at + 64 * length]
            case "end":
                del data[max(at, 16) :]
    return bytes(data)


def resident_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) >> 10


@settings(max_examples=N_FILES // BATCH, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(damaged(), min_size=BATCH, max_size=BATCH))
def test_damaged_files_harm_nobody(reader: MediaReader, batch: list[bytes]) -> None:
    """The bound of time is the children's own, and the test's limit against hanging."""

    async def outcomes() -> list[object]:
        reading = (reader.read([source(data)], ALL, CountedRoom()) for data in batch)
        return list(await asyncio.gather(*reading, return_exceptions=True))

    for found in asyncio.run(outcomes()):
        assert isinstance(found, list) or (isinstance(found, InvalidRequest) and found.field == FIELD), found
    for child in reader.lane.children:
        if child.pid is not None:
            assert resident_mib(child.pid) < SOME_MIB
    assert read(reader, files()[0])
