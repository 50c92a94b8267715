"""What the routes share, made once by create_app and reached through `app.state`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from llamabox.errors import Unavailable
from llamabox.server.config import ServerConfig
from llamabox.server.lifecycle import Lifecycle
from llamabox.server.metrics import Metrics
from llamabox.server.seams import TextService
from llamabox.server.slot_book import SlotBook
from llamabox.server.templating import Templates
from llamabox.workers.client import WorkerState
from llamabox.workers.text_config import ModelInfo

LOADING = "Loading model"
STOPPING = "The server is stopping"


@dataclass(slots=True)
class Services:
    """One for each app. Belongs to the event loop."""

    config: ServerConfig
    client: TextService
    templates: Templates
    metrics: Metrics
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    slots: SlotBook = field(default_factory=SlotBook)
    created: int = field(default_factory=lambda: int(time.time()))  # seconds since the epoch
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def next_request_id(self) -> str:
        """For the engine. A client's X-Request-ID would not do: two requests may bear the same."""
        return str(next(self._ids))

    def refusal(self) -> Unavailable | None:
        """Why nothing can be served now, if so."""
        if self.lifecycle.stopping or self.client.state is WorkerState.STOPPED:
            return Unavailable(STOPPING)
        if self.client.state is WorkerState.FAILED:
            return Unavailable("The model could not be loaded")
        if self.client.state is not WorkerState.READY or self.client.info is None:
            return Unavailable(self.client.trouble or LOADING)
        return None

    def model(self) -> ModelInfo:
        """The loaded model; Unavailable while there is none."""
        info = self.client.info
        if info is None:
            raise Unavailable(LOADING)
        return info


def services_of(connection: HTTPConnection) -> Services:
    """The typed way to `app.state.services`."""
    services = connection.app.state.services
    assert isinstance(services, Services)
    return services
