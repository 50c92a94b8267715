"""--media-path, --media-url and --visual-max-image-size, from the command line to what is read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from llamabox.engine.request import Picture
from llamabox.errors import InvalidRequest
from llamabox.media.reader import MediaReader
from llamabox.options.commandline import compose, parse
from llamabox.server.hosted.text import media_reader
from tests.media.fetching.hostile_server import serving
from tests.media.files import RED, file, plain
from tests.media.reading import ALL, CountedRoom, source


def with_words(words: Sequence[str], work: Callable[[MediaReader], Awaitable[None]]) -> None:
    """Works with a reader as a server with these words has it."""

    async def scene() -> None:
        _, _, config = compose(parse(["-m", "model.gguf", *words], {}))
        reader = media_reader(config)
        try:
            await work(reader)
        finally:
            await reader.close()

    asyncio.run(scene())


async def size(reader: MediaReader, data: str | bytes) -> tuple[int, int]:
    (found,) = await reader.read([source(data, "image")], ALL, CountedRoom())
    assert isinstance(found, Picture)
    return found.width, found.height


def test_no_picture_is_larger_than_the_user_wants() -> None:
    """--visual-max-image-size"""
    data = file(plain("RGB", RED, (640, 320)))

    async def work(reader: MediaReader) -> None:
        sizes.append(await size(reader, data))

    sizes: list[tuple[int, int]] = []
    for words in ([], ["--visual-max-image-size", "0"], ["--visual-max-image-size", "320"]):
        with_words(words, work)
    assert sizes == [(640, 320), (640, 320), (320, 160)]


def test_files_are_read_from_the_folder_that_the_user_names(tmp_path: Path) -> None:
    """--media-path"""
    (tmp_path / "a.png").write_bytes(file(plain("RGB", RED, (3, 2))))

    async def works(reader: MediaReader) -> None:
        assert await size(reader, "file://a.png") == (3, 2)
        assert await size(reader, f" File://{tmp_path}/a.png\n") == (3, 2)
        with pytest.raises(InvalidRequest, match="below --media-path"):
            await size(reader, "file://../a.png")

    async def fails(reader: MediaReader) -> None:
        with pytest.raises(InvalidRequest, match="unless it is started with --media-path"):
            await size(reader, "file://a.png")

    with_words(["--media-path", str(tmp_path)], works)
    with_words([], fails)


def test_media_are_fetched_from_the_hosts_that_the_user_names() -> None:
    """--media-url"""

    async def works() -> None:
        async with serving() as server:
            server.bodies["/a.wav"] = file(plain("RGB", RED, (3, 2)))  # whatever its name is
            _, _, config = compose(parse(["-m", "m", "--media-url", f"images.example,127.0.0.1:{server.port}"], {}))
            reader = media_reader(config)
            try:
                url = f"http://127.0.0.1:{server.port}/a.wav"
                assert await size(reader, url) == (3, 2)
                found = await reader.read([source(url, "image")] * 20, ALL, CountedRoom())
                assert len(found) == 20
                assert len(server.heads) == 2
                with pytest.raises(InvalidRequest, match="which --media-url does not allow"):
                    await size(reader, "http://other.example/a.png")
            finally:
                await reader.close()

    async def fails(reader: MediaReader) -> None:
        with pytest.raises(InvalidRequest, match="unless it is started with --media-url"):
            await size(reader, "https://images.example/a.png")

    asyncio.run(works())
    with_words([], fails)
