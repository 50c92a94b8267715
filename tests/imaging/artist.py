"""Pipelines in a process of their own: libstable-diffusion does not belong into one that may have libllama loaded."""

from __future__ import annotations

import io
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Self, TypeVar

from PIL import Image

from llamabox.imaging.config import ImageConfig, ImageModelInfo
from llamabox.imaging.events import Drawn, Event
from llamabox.imaging.job import ImageJob
from tests.models.tiny_image import TinyImage

Colour = tuple[int, int, int]
Result = TypeVar("Result")

_loaded: dict[ImageConfig, Any] = {}
"""In the child only: the one pipeline that is loaded, and what of."""


def pipeline(config: ImageConfig) -> Any:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the image worker does, before the library is loaded
    from llamabox.imaging.pipeline import Pipeline

    if config not in _loaded:
        for old in _loaded.values():
            old.close()
        _loaded.clear()
        _loaded[config] = Pipeline.load(config, lambda _: None)
    return _loaded[config]


def _draw(config: ImageConfig, job: ImageJob) -> list[Event]:
    events: list[Event] = []
    pipeline(config).draw(job, events.append)
    return events


def _info(config: ImageConfig) -> ImageModelInfo:
    found: ImageModelInfo = pipeline(config).info
    return found


class Artist:
    """One child process, which loads the tiny model with whatever options are given."""

    def __init__(self, tiny: TinyImage) -> None:
        self._tiny = tiny
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def config(self, **options: Any) -> ImageConfig:
        """One step, the fast autoencoder and one thread, unless `options` say otherwise."""
        files = {"model": str(self._tiny.model), "taesd_model": str(self._tiny.taesd)}
        usual: dict[str, Any] = {**files, "steps": 1, "n_threads": 1}
        return ImageConfig(**(usual | options))

    def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return self._pool.submit(function, *arguments).result()

    def draw(self, prompt: str, *, config: ImageConfig | None = None, **fields: Any) -> list[Event]:
        """A job of 256x256 pixels and seed 1, unless `fields` say otherwise."""
        job = ImageJob(request_id="r", prompt=prompt, **({"width": 256, "height": 256, "seed": 1} | fields))
        return self.run(_draw, config or self.config(), job)

    def info(self, **options: Any) -> ImageModelInfo:
        return self.run(_info, self.config(**options))


def images(events: list[Event]) -> list[Image.Image]:
    """What was drawn, in the order of the indexes."""
    drawn = sorted((event for event in events if isinstance(event, Drawn)), key=lambda event: event.index)
    return [Image.open(io.BytesIO(event.png)) for event in drawn]


def colours(image: Image.Image) -> tuple[Colour, list[Colour]]:
    """Of the middle, and of the four corners."""
    width, height = image.size
    corners = [(4, 4), (width - 5, 4), (4, height - 5), (width - 5, height - 5)]
    pixels = [image.getpixel(at) for at in ((width // 2, height // 2), *corners)]
    triples = [(pixel[0], pixel[1], pixel[2]) for pixel in pixels if isinstance(pixel, tuple)]
    return triples[0], triples[1:]
