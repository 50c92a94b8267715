"""A file that comes again is not decoded again, and what is kept for that is bounded."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.engine.request import Picture, Sound
from llamabox.media.decoding.link import Wanted
from llamabox.media.errand import Errand
from llamabox.media.kept import KeptMedia, Key, key_of
from llamabox.media.reader import MediaReader
from tests.media.files import BLUE, RED, file, plain
from tests.media.reading import ALL, CountedRoom, source

WANTED = Wanted(kinds=("image",))


def test_a_file_that_comes_again_is_not_decoded_again(reader: MediaReader, monkeypatch: pytest.MonkeyPatch) -> None:
    n_errands = 0
    run = Errand.run

    def counted(errand: Errand, *lane: object) -> Picture | Sound:
        nonlocal n_errands
        n_errands += 1
        return run(errand, *lane)  # type: ignore[arg-type]

    monkeypatch.setattr(Errand, "run", counted)
    red, blue = (file(plain("RGB", colour, (37, 5))) for colour in (RED, BLUE))

    async def work() -> None:
        room = CountedRoom()
        [first] = await reader.read([source(red, "image")], ALL, room)
        [again] = await reader.read([source(red, "image")], ALL, room)
        assert again is first
        assert n_errands == 1
        [other] = await reader.read([source(blue, "image")], ALL, room)
        assert other != first
        small = dataclasses.replace(source(red, "image"), max_side=3)
        [reduced] = await reader.read([small], ALL, room)
        assert isinstance(reduced, Picture)
        assert reduced.width == 3
        assert n_errands == 3

    asyncio.run(work())


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 120)), max_size=40))
def test_what_is_kept_is_bounded_and_right(kept: list[tuple[int, int]]) -> None:
    keeper = KeptMedia(100)
    known: dict[Key, Sound] = {}
    for name, size in kept:
        key = key_of(b"%d of %d" % (name, size), WANTED)
        known[key] = Sound(1, bytes([name]) * size)
        keeper.keep(key, known[key])
        assert (keeper.find(key) == known[key]) == (size <= 100)
        left = [found for key in known if (found := keeper.find(key)) is not None]
        assert keeper.n_bytes == sum(one.n_bytes for one in left) <= 100
        assert all(keeper.find(key) in (None, media) for key, media in known.items())


def test_the_least_recently_used_goes_first() -> None:
    keeper = KeptMedia(3)
    keys = [key_of(b"%d" % n, WANTED) for n in range(4)]
    for key in keys[:3]:
        keeper.keep(key, Sound(1, b"x"))
    keeper.find(keys[0])
    keeper.keep(keys[3], Sound(1, b"x"))
    assert [keeper.find(key) is not None for key in keys] == [True, False, True, True]


def test_a_text_is_not_the_file_of_its_letters() -> None:
    assert key_of("data", WANTED) != key_of(b"data", WANTED)
