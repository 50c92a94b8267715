"""POST /v1/completions: OpenAI's legacy route, with any native field on top."""

from __future__ import annotations

from starlette.responses import Response

from llamabox.server.api.openai.completions.echo import check_echo, echo_text
from llamabox.server.api.openai.completions.fields import completion_options, wants_echo
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
    has_echo = wants_echo(exchange.body)
    if has_echo:
        check_echo(raw)
    prompts = await read_media(exchange, raw)
    reply = TextReply(exchange, prompts, options)
    echoes = [await echo_text(hosted.client, prompt) for prompt in prompts] if has_echo else []
    writer = CompletionWriter(options, reply, exchange.info, echoes)
    return await reply.answer(writer, tell_prompt=writer.prompt)
