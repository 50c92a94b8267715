"""A model that draws, behind the port (`--images`)."""

from __future__ import annotations

from typing import Final

from llamabox.imaging.config import ImageConfig, ImageModelInfo
from llamabox.server.hosted.abilities import Ability
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.hosted.model import Hosted, not_loaded
from llamabox.server.hosted.seams import ImageService
from llamabox.server.hosted.text import media_reader
from llamabox.server.metrics.images import ImageMetrics

OF_LANGUAGE_MODELS = frozenset(Ability) - {Ability.DRAW, Ability.SHOW_JOBS, Ability.LORA}


class HostedImages(Hosted):
    """A model that makes pictures of texts and pictures."""

    def __init__(self, config: ModelConfig, client: ImageService, images: ImageConfig) -> None:
        super().__init__(config)
        self._client = client
        self._metrics = ImageMetrics(client)
        self.images: Final = images
        self.pictures: Final = media_reader(config)

    @property
    def client(self) -> ImageService:
        return self._client

    @property
    def metrics(self) -> ImageMetrics:
        return self._metrics

    @property
    def info(self) -> ImageModelInfo:
        if (info := self._client.info) is None:
            raise not_loaded()
        return info

    @property
    def abilities(self) -> frozenset[Ability]:
        able = {
            Ability.DRAW: True,
            Ability.SHOW_JOBS: self.config.enable_slots,
            Ability.LORA: len(self.info.lora) > 0,
        }
        return frozenset(ability for ability, is_there in able.items() if is_there)

    @property
    def ruled_out(self) -> frozenset[Ability]:
        return OF_LANGUAGE_MODELS

    def describe(self) -> str:
        info = self.info
        return (
            f"{info.path}, {info.family}: {info.sampler}, {info.steps} steps, {info.width}x{info.height}; "
            f"{self.images.n_parallel} may wait"
        )

    async def warm(self) -> None:
        """A picture to begin with is rare: its process starts when it comes."""

    async def close(self) -> None:
        await self.pictures.close()

    def may_wait(self, path: str) -> bool:
        return path.startswith("/v1/images/") and self._client.takes_jobs and self._client.info is not None
