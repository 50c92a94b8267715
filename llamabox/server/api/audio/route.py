"""POST /v1/audio/transcriptions: a recording as text, by a model that hears (docs/api.md, Transcriptions)."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from llamabox.chat.template import RenderedChat
from llamabox.errors import InvalidRequest
from llamabox.server.api.audio.fields import Transcription, parse_transcription
from llamabox.server.api.audio.writer import TranscriptEvents, whole_transcript
from llamabox.server.api.openai.chat.route import cut_prompt
from llamabox.server.fields.request import Dialect
from llamabox.server.generation.media import read_media
from llamabox.server.generation.reply import TextReply, options_of
from llamabox.server.generation.timings import rate_header
from llamabox.server.hosted.exchange import Exchange, serve_body
from llamabox.server.hosted.site import site_of
from llamabox.server.hosted.text import HostedText
from llamabox.server.http.json import JsonResponse
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
    options = options_of(exchange, Dialect.CHAT)
    text = await exchange.hosted.templates.render(exchange.info, asked.conversation)
    prompts = await read_media(exchange, [cut_prompt(RenderedChat(asked.conversation, text), exchange.info)])
    reply = TextReply(exchange, prompts, options)
    if options.stream:
        return reply.stream(TranscriptEvents())
    [choice] = await reply.gather()
    headers = rate_header(choice.finished.timings)
    if asked.as_text:
        return PlainTextResponse(choice.text, headers=headers)
    return JsonResponse(whole_transcript(choice), headers=headers)
