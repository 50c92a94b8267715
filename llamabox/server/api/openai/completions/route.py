"""POST /v1/completions: OpenAI's legacy route, with any native field on top."""

from __future__ import annotations

from starlette.responses import Response

from llamabox.server.api.openai.reply import openai_reply
from llamabox.server.fields.prompt import parse_prompts
from llamabox.server.fields.request import Dialect
from llamabox.server.generation.media import read_media
from llamabox.server.generation.reply import options_of
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.http.threads import n_values, off_loop


async def openai_completion(exchange: Exchange) -> Response:
    """Several prompts give choices prompt * n + sequence, and one sum of usage."""
    n = n_values(exchange.body.get("prompt"))
    raw, _ = await off_loop(n, parse_prompts, exchange.body, exchange.info, exchange.hosted.media_marker)
    options = options_of(exchange, Dialect.COMPLETION)
    return await openai_reply(exchange, await read_media(exchange, raw), options, Dialect.COMPLETION)
