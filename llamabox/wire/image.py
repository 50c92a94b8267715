"""The messages of the image worker. A job's pictures travel raw, those that are drawn as PNG."""

from __future__ import annotations

from dataclasses import dataclass

from llamabox.imaging.config import ImageConfig, ImageModelInfo
from llamabox.imaging.events import WorkerEvent
from llamabox.imaging.job import ImageJob


@dataclass(frozen=True, slots=True)
class ConfigureImages:
    """The first frame: what to load."""

    config: ImageConfig


@dataclass(frozen=True, slots=True)
class Draw:
    """A job. The worker has one at a time: the next is sent after the Finished or Failed of the one before."""

    job: ImageJob


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop drawing that job: within a step where the library can, else after this image. Its end is still told."""

    request_id: str


@dataclass(frozen=True, slots=True)
class ImagesReady:
    """The model draws from now on."""

    info: ImageModelInfo


@dataclass(frozen=True, slots=True)
class Told:
    """One event of the job that is drawn."""

    event: WorkerEvent


ImageMessage = ConfigureImages | Draw | Cancel | ImagesReady | Told
