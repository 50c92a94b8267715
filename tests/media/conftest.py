"""One reader for all tests of this folder: its children start once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from llamabox.media.reader import MediaReader


@pytest.fixture(scope="session")
def reader() -> Iterator[MediaReader]:
    """It fetches nothing."""
    made = MediaReader()
    asyncio.run(made.warm())
    yield made
    asyncio.run(made.close())
