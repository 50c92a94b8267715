"""Events of an image job, in the order in which they happen.

Queued as often as its place changes, JobStarted, then JobProgress, Preview and Drawn of each image, then JobFinished.
A JobFailed may come at any time, and is the last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Queued:
    """The job waits: `place` 1 is next. Made by the client, not by the worker."""

    request_id: str
    place: int


@dataclass(frozen=True, slots=True)
class JobStarted:
    """The worker has begun with it."""

    request_id: str


@dataclass(frozen=True, slots=True)
class JobProgress:
    """`step` of `steps` of the image `index` are done."""

    request_id: str
    index: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Preview:
    """The image `index` as it looks after `step` of `steps`."""

    request_id: str
    index: int
    step: int
    steps: int
    png: bytes


@dataclass(frozen=True, slots=True)
class Drawn:
    """The image `index` is done."""

    request_id: str
    index: int
    png: bytes
    seed: int
    prepare_ms: float
    sampling_ms: float
    steps: int


@dataclass(frozen=True, slots=True)
class JobFailed:
    """The job cannot go on. `error` is `errors.to_wire()` of the reason."""

    request_id: str
    error: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobFinished:
    """The end of a job."""

    request_id: str


WorkerEvent = JobStarted | JobProgress | Preview | Drawn | JobFailed | JobFinished

Event = Queued | WorkerEvent
