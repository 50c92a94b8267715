"""What the server needs of the text worker's client: a real seam, with a fake in tests/server/fake_client.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from llamabox.engine.events import Activity, Event, StepTimes
from llamabox.workers.client import WorkerState
from llamabox.workers.protocol import Submit
from llamabox.workers.text_config import ModelInfo


class Generation(Protocol):
    """The events of one Submit. One consumer; a Failed event is raised as its error."""

    async def batch(self) -> list[Event]:
        """The events there are, waited for; [] after the last of all sequences."""

    def abort(self) -> None:
        """Idempotent, does not wait: the slot is free within one engine step. Nothing after a complete end."""


class TextService(Protocol):
    """The text worker as the event loop sees it. Belongs to one event loop."""

    @property
    def state(self) -> WorkerState: ...
    @property
    def info(self) -> ModelInfo | None: ...
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

    async def call(self, method: str, **arguments: Any) -> Any:
        """One question of workers.protocol.Call, and its answer."""
