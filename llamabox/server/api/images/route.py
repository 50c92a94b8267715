"""POST /v1/images/generations and /v1/images/edits (docs/api.md, Images)."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import ClassVar

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llamabox.checks import parse_body, wrong
from llamabox.errors import InvalidRequest
from llamabox.imaging.job import ImageJob, Pixels
from llamabox.server.api.images.drawing import PictureReply
from llamabox.server.api.images.fields import parse_image_options
from llamabox.server.api.images.uploads import Form, decode, read_form, take_pictures
from llamabox.server.hosted.exchange import serve_body
from llamabox.server.hosted.images import HostedImages
from llamabox.server.hosted.site import site_of
from llamabox.server.http.multipart import FORM, content_type
from llamabox.server.http.record import RequestRecord, record_of
from llamabox.server.http.request_body import Lease

logger = logging.getLogger(__name__)


class ImageRoute:
    """An ASGI app, served by `serve_body`: the common part of the two routes."""

    event_name: ClassVar[str]  # of OpenAI's events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        site = site_of(Request(scope))
        hosted = site.serving(HostedImages)

        async def answer(raw: bytearray, lease: Lease) -> Response:
            form = await self._read(Headers(scope=scope), raw, site.listen.max_body)
            raw.clear()
            return await self._draw(hosted, record_of(scope), form, lease)

        await serve_body(site, answer, scope, receive, send)

    async def _read(self, headers: Headers, raw: bytearray, max_part: int) -> Form:
        return take_pictures(parse_body(raw))

    async def _draw(self, hosted: HostedImages, record: RequestRecord, form: Form, lease: Lease) -> Response:
        options = parse_image_options(form.fields, hosted)
        job = await _with_pictures(hosted, options.job, form, lease)
        if logger.isEnabledFor(logging.DEBUG):  # verbosity 2: no level below shows a request's text
            logger.debug("%s prompt %r", record.request_id, job.prompt)
        return await PictureReply(hosted, record, job, options, self.event_name).answer()


class GenerationRoute(ImageRoute):
    """A picture from a text."""

    event_name = "image_generation"

    async def _read(self, headers: Headers, raw: bytearray, max_part: int) -> Form:
        form = await super()._read(headers, raw, max_part)
        for part in ("image", "mask"):
            if part in form.pictures:
                raise wrong(part, "is for /v1/images/edits; this route draws from the text alone")
        return form


class EditRoute(ImageRoute):
    """A picture from a picture and a text."""

    event_name = "image_edit"

    async def _read(self, headers: Headers, raw: bytearray, max_part: int) -> Form:
        kind = content_type(headers)
        if kind == FORM:
            form = await read_form(headers, raw, max_part)
        else:
            try:
                form = await super()._read(headers, raw, max_part)
            except InvalidRequest as exc:
                if exc.field is None and kind != "application/json":
                    raise InvalidRequest(f"Request must be {FORM}, or JSON with pictures in base64") from exc
                raise
        if "image" not in form.pictures:
            raise wrong("image", '"image" must be provided')
        return form


async def _with_pictures(hosted: HostedImages, job: ImageJob, form: Form, lease: Lease) -> ImageJob:
    """With ControlNet a mask that comes without a control picture is one, as llama-box's clients have it."""
    pictures = dict(form.pictures)
    has_control_net = hosted.info.has_control_net
    if has_control_net and "mask" in pictures and "control" not in pictures:
        pictures["control"] = pictures.pop("mask")
    if "control" in pictures and not has_control_net:
        raise wrong("control", "this server has no ControlNet; start it with `--image-control-net-model`")
    found: dict[str, Pixels] = {}
    for part, channels in (("image", 3), ("mask", 1), ("control", 3)):
        sent = pictures.pop(part, None)
        if sent is not None:
            found[part] = await decode(hosted.pictures, part, sent, job.width, job.height, lease, channels=channels)
    return replace(job, init=found.get("image"), mask=found.get("mask"), control=found.get("control"))
