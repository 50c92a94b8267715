from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imaging.artist import Artist
from tests.models.tiny_image import TinyImage
from tests.models.tiny_image_parts import write_lora, write_upscaler


@pytest.fixture(scope="session")
def artist(tiny_image: TinyImage) -> Iterator[Artist]:
    with Artist(tiny_image) as started:
        yield started


@pytest.fixture(scope="session")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tmp_path_factory.mktemp("lora") / "green.safetensors")


@pytest.fixture(scope="session")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_upscaler(tmp_path_factory.mktemp("upscaler") / "twice.safetensors")
