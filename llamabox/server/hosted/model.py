"""A model behind the port, of whichever kind: its worker, its configuration, and what holds for all requests to it."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Final, Protocol

from llamabox.clients.state import LOADING, WorkerState, unavailable
from llamabox.engine.request import GenerationParams, LoraSet
from llamabox.errors import Unavailable
from llamabox.server.hosted.abilities import Ability
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.hosted.seams import LoadedModel, Service
from llamabox.server.http.record import RequestRecord


class Collector(Protocol):
    """Counts what happens, for GET /metrics."""

    def scrape(self) -> bytes: ...
    def answered(self, record: RequestRecord) -> None: ...


class Hosted(ABC):
    """A model, from the start of its worker to the end of the server. Belongs to the event loop."""

    def __init__(self, config: ModelConfig) -> None:
        self.config: Final = config
        self.created: Final = int(time.time())  # seconds since the epoch
        self._defaults = config.defaults
        self._ids = itertools.count(1)

    @property
    @abstractmethod
    def client(self) -> Service:
        """The worker."""

    @property
    @abstractmethod
    def metrics(self) -> Collector:
        """Counts of this model's requests."""

    @property
    @abstractmethod
    def info(self) -> LoadedModel:
        """The loaded model's facts; Unavailable while there is none."""

    @property
    @abstractmethod
    def abilities(self) -> frozenset[Ability]:
        """What requests may ask for now. Unavailable while no model is loaded."""

    @property
    @abstractmethod
    def ruled_out(self) -> frozenset[Ability]:
        """What no option would give a model of this kind."""

    @abstractmethod
    def describe(self) -> str:
        """The loaded model in one line, for the log."""

    @abstractmethod
    async def warm(self) -> None:
        """Prepare for the first request, once the model is loaded. Never raises."""

    @abstractmethod
    async def close(self) -> None:
        """Ends what requests started beside the worker. Idempotent."""

    @property
    def defaults(self) -> GenerationParams:
        """The parameters of a request that says nothing."""
        return self._defaults

    def set_lora(self, chosen: LoraSet) -> None:
        """The adapters and scales of requests from now on that name none. Those under way keep theirs."""
        # Here and nowhere else: each request carries its set, so a worker that is started again need not be told.
        self._defaults = replace(self._defaults, lora=chosen)

    def next_request_id(self) -> str:
        """A new id for the worker. A client's X-Request-ID would not do: two requests may bear the same."""
        return str(next(self._ids))

    def unavailable(self) -> Unavailable | None:
        """Why no request can be served now, if so."""
        client = self.client
        if client.state is not WorkerState.READY or client.info is None:
            return unavailable(client.state, client.trouble)
        return None

    def may_wait(self, path: str) -> bool:
        """Whether a request of this path, without the prefix, is let in although the worker is not ready."""
        return False


def not_loaded() -> Unavailable:
    """The error of who asks for the facts of a model that is not loaded yet."""
    return Unavailable(LOADING)
