"""The messages that every kind of worker has in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from llamabox.errors import LlamaboxError, ServerFault, from_wire


class WorkerConfig(Protocol):
    """The part of a configuration that every kind of worker has, and its client reads too."""

    @property
    def model(self) -> str: ...
    @property
    def verbosity(self) -> int: ...
    @property
    def log_colors(self) -> bool: ...
    @property
    def log_json(self) -> bool: ...
    @property
    def hang_timeout(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Shutdown:
    """End in order, exit 0. A text worker finishes its step; an image worker does not wait for the one it draws."""


@dataclass(frozen=True, slots=True)
class Loading:
    """Load progress, 0 to 1."""

    progress: float


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model cannot be served; `error` is `errors.to_wire()`. The worker exits after it."""

    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody sent the worker a SIGTERM: it goes on, and the server is to stop everything in order."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The worker gets on with what it does, or has nothing to do. Whoever says something else says so as well."""


CommonMessage = Shutdown | Loading | LoadFailed | StopAsked | Beat


def read_error(wire: dict[str, Any]) -> LlamaboxError:
    """`errors.from_wire`, but an error that cannot be read is an error as well."""
    try:
        return from_wire(wire)
    except (KeyError, TypeError) as exc:
        return ServerFault(f"the worker failed, with a reason that cannot be read: {wire!r} ({exc!r})")
