"""The messages of the image worker. Pictures travel as payload: a job's raw, those that are drawn as PNG."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from llamabox.imaging.config import ImageConfig, ImageModelInfo
from llamabox.imaging.events import Drawn, Event, Failed, Finished, Preview, Progress, Started
from llamabox.imaging.job import ImageJob, Pixels
from llamabox.wire.codec import Wire, configuring, header_only


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

    event: Event


ImageMessage = ConfigureImages | Draw | Cancel | ImagesReady | Told

_PICTURES = ("init", "mask", "control")
"""The fields of a job that hold one, in the order in which they stand in the payload."""

_EVENTS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind for kind in (Started, Progress, Preview, Drawn, Failed, Finished)
}


def _values(message: Any) -> dict[str, Any]:
    """As dataclasses.asdict, but only the outermost, and nothing is copied."""
    return {one.name: getattr(message, one.name) for one in fields(message)}


def _pack_draw(draw: Draw) -> tuple[dict[str, Any], bytes]:
    body = _values(draw.job)
    pictures: list[Pixels] = []
    for name in _PICTURES:
        if (picture := body[name]) is not None:
            pictures.append(picture)
            body[name] = (picture.width, picture.height, picture.channels)
    return body, b"".join(picture.data for picture in pictures)


def _draw(body: dict[str, Any], payload: bytes) -> Draw:
    start = 0
    for name in _PICTURES:
        if body[name] is not None:
            width, height, channels = body[name]
            stop = start + width * height * channels
            body[name] = Pixels(width, height, channels, payload[start:stop])
            start = stop
    if start != len(payload):
        raise ValueError(f"pictures of {start} bytes are announced, and {len(payload)} came")
    body["slg_layers"] = tuple(body["slg_layers"])
    body["lora"] = tuple((lora_id, scale) for lora_id, scale in body["lora"])
    return Draw(ImageJob(**body))


def _pack_event(told: Told) -> tuple[tuple[str, dict[str, Any]], bytes]:
    name = type(told.event).__name__.lower()
    assert name in _EVENTS, f"the worker makes no {name} event"
    body = _values(told.event)
    return (name, body), body.pop("png", b"")


def _event(body: list[Any], payload: bytes) -> Told:
    name, values = body
    if name in ("preview", "drawn"):
        values["png"] = payload
    elif payload:
        raise ValueError(f"a {name} event has no picture, but {len(payload)} bytes came with it")
    return Told(_EVENTS[name](**values))


def _image_config(values: dict[str, Any]) -> ImageConfig:
    values["lora"] = tuple(values["lora"])
    return ImageConfig(**values)


WIRES: dict[type[Any], Wire] = {
    ConfigureImages: configuring("configure_images", lambda fields: ConfigureImages(_image_config(fields))),
    Draw: Wire("draw", _pack_draw, _draw),
    Cancel: header_only("cancel", lambda body: Cancel(**body)),
    ImagesReady: header_only("images_ready", lambda body: ImagesReady(ImageModelInfo(**body["info"]))),
    Told: Wire("told", _pack_event, _event),
}
