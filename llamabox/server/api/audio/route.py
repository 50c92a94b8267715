"""POST /v1/audio/transcriptions: a recording as text, by a model that hears (docs/api.md, Transcriptions)."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llamabox.chat.template import RenderedChat
from llamabox.errors import InvalidRequest
from llamabox.server.api.audio.fields import Transcription, parse_transcription
from llamabox.server.api.audio.writer import TranscriptWriter
from llamabox.server.fields.request import openai_defaults, parse_options
from llamabox.server.generation.prompts import cut_prompt, read_media
from llamabox.server.generation.reply import TextReply
from llamabox.server.hosted.exchange import Exchange, serve_body
from llamabox.server.hosted.site import site_of
from llamabox.server.hosted.text import HostedText
from llamabox.server.http.multipart import FORM, content_type, read_parts
from llamabox.server.http.record import record_of
from llamabox.server.http.request_body import Lease


class TranscriptionRoute:
    """An ASGI app, served by `serve_body`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        site = site_of(Request(scope))
        hosted = site.serving(HostedText)

        async def answer(raw: bytearray, lease: Lease) -> Response:
            headers = Headers(scope=scope)
            if content_type(headers) != FORM:
                raise InvalidRequest(f'Request must be {FORM} with a recording as "file"')
            asked = parse_transcription(await read_parts(headers, raw, site.listen.max_body), hosted.config)
            raw.clear()
            return await transcribe(Exchange(hosted, hosted.info, asked.body, record_of(scope), scope, lease), asked)

        await serve_body(site, answer, scope, receive, send)


async def transcribe(exchange: Exchange, asked: Transcription) -> Response:
    """A chat with the recording in its one message, answered in OpenAI's form of a transcript."""
    hosted = exchange.hosted
    defaults = openai_defaults(hosted.defaults, hosted.config)
    options = parse_options(exchange.body, hosted.config, defaults, exchange.info)
    text = await hosted.templates.render(exchange.info, asked.conversation)
    prompts = await read_media(exchange, [cut_prompt(RenderedChat(asked.conversation, text), exchange.info)])
    reply = TextReply(exchange, prompts, options)
    return await reply.answer(TranscriptWriter(as_text=asked.as_text))
