"""The workers' clients as the server sees them: real seams, with fakes in tests/server/."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeVar

from llamabox.clients.image.client import QueueState
from llamabox.clients.state import WorkerState
from llamabox.engine.events import Activity, Event, StepTimes, Vector
from llamabox.engine.request import PromptPart
from llamabox.imaging import events as imaging
from llamabox.imaging.config import ImageModelInfo
from llamabox.imaging.job import ImageJob
from llamabox.wire.questions import A, Question
from llamabox.wire.text import Submit
from llamabox.wire.text_config import ModelInfo

E = TypeVar("E")


class LoadedModel(Protocol):
    """The facts of a loaded model of any kind."""

    @property
    def path(self) -> str: ...
    @property
    def lora(self) -> Sequence[Mapping[str, Any]]:
        """The adapters by id: their path, and other facts for GET /lora-adapters."""


class Service(Protocol):
    """A worker of any kind as the event loop sees it. Belongs to one event loop."""

    @property
    def state(self) -> WorkerState: ...
    @property
    def info(self) -> LoadedModel | None: ...
    @property
    def trouble(self) -> str:
        """The sentence that says what a worker that is not READY waits for; empty where it loads the model."""

    @property
    def n_restarts(self) -> int: ...
    @property
    def stop_asked(self) -> asyncio.Event:
        """Set when the worker was sent the SIGTERM that is meant for the whole server."""

    async def start(self) -> None:
        """Have it load in the background. Further calls change nothing."""

    async def wait_ready(self) -> LoadedModel: ...
    async def stop(self, grace: float) -> None: ...


class Stream(Protocol[E]):
    """The events of one text or picture. One consumer; a Failed event is raised as its error."""

    async def batch(self) -> list[E]:
        """The events there are, waited for; [] after the end."""

    def abort(self) -> None:
        """Stop: a slot is free within one engine step, a job that waits is forgotten. Idempotent, does not wait."""


class VectorStream(Protocol):
    """The vectors of one request, as they are made. One consumer; leaving it as a context manager aborts the rest."""

    async def all(self) -> list[Vector]:
        """Every vector, in the order of the prompts."""

    def __aiter__(self) -> VectorStream: ...
    async def __anext__(self) -> list[Vector]: ...
    async def __aenter__(self) -> VectorStream: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None: ...


class TextService(Service, Protocol):
    """The text worker."""

    @property
    def info(self) -> ModelInfo | None: ...
    @property
    def activity(self) -> Activity:
        """The worker's counts and what it holds now, as of its last message. Asks nobody."""

    on_step: Callable[[StepTimes], None]
    """Called with the times of each step that computed something. Does nothing until it is replaced."""

    async def wait_ready(self) -> ModelInfo: ...
    def check_room(self) -> None:
        """Raises QueueFull while as many wait as may."""

    def generate_all(self, submits: Sequence[Submit]) -> Sequence[Stream[Event]]:
        """The events of each of the prompts, which share their params. Raises Unavailable at once when not ready."""

    def embed(self, prompts: Sequence[Sequence[PromptPart]]) -> VectorStream:
        """The vectors of at least one prompt. Raises Unavailable at once when the worker is not ready."""

    def rank(
        self, query: str, documents: Sequence[str], *, field: str, n_document: int | None, truncate: bool
    ) -> VectorStream:
        """A reranker's outputs for the query with each document. Raises as embed does; errors name the field."""

    async def ask(self, question: Question[A]) -> A:
        """The worker's answer. Raises what the question raises, and Unavailable when the worker is not ready."""


class ImageService(Service, Protocol):
    """The image worker, and the queue before it: one job at a time is drawn."""

    @property
    def info(self) -> ImageModelInfo | None: ...
    @property
    def queue(self) -> QueueState:
        """The queue as it is now. Asks nobody."""

    @property
    def takes_jobs(self) -> bool:
        """The worker is ready, or is about to be: jobs wait for it."""

    on_drawn: Callable[[imaging.Drawn], None]
    """Called with each image that was drawn. Does nothing until it is replaced."""

    async def wait_ready(self) -> ImageModelInfo: ...
    def draw(self, job: ImageJob) -> Stream[imaging.Event]:
        """Raises Unavailable at once when no jobs are taken, QueueFull when as many wait as may."""
