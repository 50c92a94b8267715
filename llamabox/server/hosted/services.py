"""The objects that all routes share: made once by create_app, and reached through `app.state`."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from starlette.requests import HTTPConnection

from llamabox.clients.state import LOADING, WorkerState, unavailable
from llamabox.engine.request import GenerationParams
from llamabox.errors import Unavailable
from llamabox.imaging.config import ImageConfig, ImageModelInfo
from llamabox.media.desk import MediaDesk
from llamabox.media.reader import MediaReader
from llamabox.server.config import ServerConfig
from llamabox.server.hosted.seams import ImageService, LoadedModel, Service, TextService
from llamabox.server.hosted.slot_book import SlotBook
from llamabox.server.hosted.templating import Templates
from llamabox.server.http.lifecycle import Lifecycle
from llamabox.server.http.record import RequestRecord
from llamabox.server.http.request_body import BodyBudget
from llamabox.server.metrics.images import ImageMetrics
from llamabox.server.metrics.text import TextMetrics
from llamabox.wire.text_config import ModelInfo


class Collector(Protocol):
    """Counts what happens, for GET /metrics."""

    def scrape(self) -> bytes: ...
    def answered(self, record: RequestRecord) -> None: ...


@dataclass(slots=True, kw_only=True)
class Services(ABC):
    """One for each app, of one of the two kinds below. Belongs to the event loop."""

    config: ServerConfig
    client: Service
    metrics: Collector
    defaults: GenerationParams = field(init=False)  # of requests from now on; POST /lora-adapters replaces the LoRA set
    bodies: BodyBudget = field(init=False)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    created: int = field(default_factory=lambda: int(time.time()))  # seconds since the epoch
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.defaults = self.config.defaults
        self.bodies = BodyBudget(max(self.config.max_bodies, self.config.max_body))

    def next_request_id(self) -> str:
        """A new id for the engine. A client's X-Request-ID would not do: two requests may bear the same."""
        return str(next(self._ids))

    def refusal(self) -> Unavailable | None:
        """Why nothing can be served now, if so."""
        state = WorkerState.STOPPED if self.lifecycle.stopping else self.client.state
        if state is not WorkerState.READY or self.client.info is None:
            return unavailable(state, self.client.trouble)
        return None

    def may_wait(self, path: str) -> bool:
        """Whether a request of this path, without the prefix, is let in although the worker is not ready."""
        return False

    def model(self) -> LoadedModel:
        """The loaded model; Unavailable while there is none."""
        return _loaded(self.client.info)

    @abstractmethod
    def describe(self) -> str:
        """The loaded model in one line, for the log."""

    @abstractmethod
    async def warm(self) -> None:
        """Prepare for the first request, once the model is loaded. Never raises."""

    @abstractmethod
    async def close(self) -> None:
        """Ends what the routes started beside the worker. Idempotent."""


@dataclass(slots=True, kw_only=True)
class TextServices(Services):
    """The services of a server with a language model."""

    client: TextService
    metrics: TextMetrics
    templates: Templates
    media: MediaDesk
    media_marker: str  # stands in a prompt_string for an entry of multimodal_data
    slots: SlotBook = field(default_factory=SlotBook)

    def model(self) -> ModelInfo:
        return _loaded(self.client.info)

    def describe(self) -> str:
        info = self.model()
        return f"{info.path}, {info.n_slots} slots of {info.n_ctx} tokens"

    async def warm(self) -> None:
        await self.templates.warm(self.model())
        if self.model().media is not None:
            await self.media.warm()

    async def close(self) -> None:
        await self.templates.close()
        await self.media.close()


@dataclass(slots=True, kw_only=True)
class ImageServices(Services):
    """The services of a server with a model that draws (`--images`)."""

    client: ImageService
    metrics: ImageMetrics
    images: ImageConfig
    pictures: MediaReader

    def may_wait(self, path: str) -> bool:
        is_job = path.startswith("/v1/images/")
        return is_job and self.client.takes_jobs and self.client.info is not None and not self.lifecycle.stopping

    def model(self) -> ImageModelInfo:
        return _loaded(self.client.info)

    def describe(self) -> str:
        info = self.model()
        return (
            f"{info.path}, {info.family}: {info.sampler}, {info.steps} steps, {info.width}x{info.height}; "
            f"{self.images.n_parallel} may wait"
        )

    async def warm(self) -> None:
        """A picture to begin with is rare: its process starts when it comes."""

    async def close(self) -> None:
        await self.pictures.close()


def media_reader(config: ServerConfig) -> MediaReader:
    """A reader of media within the bounds that the user set. It starts nothing yet."""
    return MediaReader(folder=config.media_path, hosts=config.media_hosts, max_side=config.visual_max_image_size)


Kind = TypeVar("Kind", bound=Services)
Info = TypeVar("Info")


def any_services(connection: HTTPConnection) -> Services:
    """The typed way to `app.state.services`, for a route that every server has."""
    services = connection.app.state.services
    assert isinstance(services, Services)
    return services


def services_of(connection: HTTPConnection, kind: type[Kind]) -> Kind:
    """The typed way to `app.state.services`, for a route that one kind of server has."""
    services = any_services(connection)
    assert isinstance(services, kind)
    return services


def _loaded(info: Info | None) -> Info:
    if info is None:
        raise Unavailable(LOADING)
    return info
