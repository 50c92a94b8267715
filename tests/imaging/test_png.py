"""The files that leave the worker."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from llamabox.imaging import png


@pytest.mark.parametrize("channels", [1, 3])
def test_the_pixels_come_back(channels: int) -> None:
    data = bytes(range(6 * channels))
    image = Image.open(io.BytesIO(png.encode(3, 2, channels, data)))
    assert (image.format, image.size, image.tobytes()) == ("PNG", (3, 2), data)


@pytest.mark.parametrize("text", ["a red dot\nSteps: 1", "ein rötlicher Punkt", "赤い点", "x" * 100_000])
def test_the_parameters_are_in_the_file(text: str) -> None:
    image = Image.open(io.BytesIO(png.encode(1, 1, 3, b"abc", text)))
    image.load()
    assert image.info["parameters"] == text


def test_the_same_picture_is_the_same_file() -> None:
    data = bytes(3 * 64 * 64)
    assert png.encode(64, 64, 3, data, "text") == png.encode(64, 64, 3, data, "text")
