"""What the server needs of the text worker's client: a real seam, with a fake in tests/server/fake_client.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol

from llamabox.engine.events import Activity, Event, StepTimes, Vector
from llamabox.workers.client import WorkerState
from llamabox.workers.protocol import Submit
from llamabox.workers.text_config import ModelInfo


class Generation(Protocol):
    """The events of one Submit. One consumer; a Failed event is raised as its error."""

    async def batch(self) -> list[Event]:
        """The events there are, waited for; [] after the last of all sequences."""

    def abort(self) -> None:
        """Idempotent, does not wait: the slot is free within one engine step. Nothing after a complete end."""


class Embedding(Protocol):
    """The vectors of one request, as they are made. One consumer; leaving it as a context manager aborts the rest."""

    async def all(self) -> list[Vector]:
        """Every vector, in the order of the prompts."""

    def __aiter__(self) -> Embedding: ...
    async def __anext__(self) -> list[Vector]: ...
    async def __aenter__(self) -> Embedding: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None: ...


class TextService(Protocol):
    """The text worker as the event loop sees it. Belongs to one event loop."""

    @property
    def state(self) -> WorkerState: ...
    @property
    def info(self) -> ModelInfo | None: ...
    @property
    def trouble(self) -> str:
        """What a worker that is not READY waits for, as a sentence; empty where it is the model."""

    @property
    def activity(self) -> Activity:
        """What the workers did so far and hold now, as last told: asks nobody."""

    on_step: Callable[[StepTimes], None]
    """Called with the times of each step that computed something. Does nothing until it is replaced."""

    @property
    def n_restarts(self) -> int: ...
    @property
    def stop_asked(self) -> asyncio.Event:
        """Set when the worker was sent the SIGTERM that is meant for the whole server."""

    async def start(self) -> None: ...
    async def wait_ready(self) -> ModelInfo: ...
    async def stop(self, grace: float) -> None: ...
    def generate(self, submit: Submit) -> Generation:
        """Raises Unavailable at once when the worker is not ready."""

    def embed(
        self, prompts: Sequence[Sequence[str | int]], *, add_special: bool = True, parse_special: bool = True
    ) -> Embedding:
        """The vectors of at least one prompt. Raises Unavailable at once when the worker is not ready."""

    def rank(
        self, query: str, documents: Sequence[str], *, field: str, n_document: int | None, truncate: bool
    ) -> Embedding:
        """A reranker's outputs for the query with each document. Raises as embed does; errors name the field."""

    async def call(self, method: str, **arguments: Any) -> Any:
        """One question of workers.protocol.Call, and its answer."""
