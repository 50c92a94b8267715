"""POST /v1/completions: OpenAI's legacy route, with any native field on top."""

from __future__ import annotations

from starlette.responses import Response

from llamabox.server.api.openai.completions.fields import completion_options
from llamabox.server.api.openai.completions.writer import CompletionWriter
from llamabox.server.fields.prompt import parse_prompts
from llamabox.server.generation.prompts import read_media
from llamabox.server.generation.reply import TextReply
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.http.threads import n_values, off_loop


async def openai_completion(exchange: Exchange) -> Response:
    """Several prompts give choices prompt * n + sequence, and one sum of usage."""
    n = n_values(exchange.body.get("prompt"))
    raw, _ = await off_loop(n, parse_prompts, exchange.body, exchange.info, exchange.hosted.media_marker)
    hosted = exchange.hosted
    options = completion_options(exchange.body, hosted.config, hosted.defaults, exchange.info)
    reply = TextReply(exchange, await read_media(exchange, raw), options)
    return await reply.answer(CompletionWriter(options, reply, exchange.info))
