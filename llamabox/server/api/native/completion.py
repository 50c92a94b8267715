"""POST /completion and /completions: llama.cpp's native route."""

from __future__ import annotations

from starlette.responses import Response

from llamabox.server.api.native.fields import native_options, parse_response_fields
from llamabox.server.api.native.writer import NativeWriter
from llamabox.server.fields.prompt import parse_prompts
from llamabox.server.generation.prompts import read_media
from llamabox.server.generation.reply import TextReply
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.http.threads import n_values, off_loop


async def completion(exchange: Exchange) -> Response:
    """One prompt gives an object; a list of prompts, or n > 1, gives an array. Streams have no [DONE]."""
    n = n_values(exchange.body.get("prompt"))
    raw, is_list = await off_loop(n, parse_prompts, exchange.body, exchange.info, exchange.hosted.media_marker)
    hosted = exchange.hosted
    options = native_options(exchange.body, hosted.config, hosted.defaults, exchange.info)
    fields = parse_response_fields(exchange.body)
    reply = TextReply(exchange, await read_media(exchange, raw), options)
    return await reply.answer(NativeWriter(options, reply, fields, is_list=is_list))
