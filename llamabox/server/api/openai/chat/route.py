"""POST /v1/chat/completions and what shows its prompt: /apply-template, /v1/chat/completions/input_tokens."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from starlette.responses import Response

from llamabox.server.api.openai.chat.fields import chat_options
from llamabox.server.api.openai.chat.writer import ChatWriter
from llamabox.server.conversation.calling import parse_calling
from llamabox.server.conversation.planning import plan_chat
from llamabox.server.conversation.rendering import OPENAI
from llamabox.server.generation.prompts import cut_prompt, read_media
from llamabox.server.generation.reply import TextReply
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.http.json import JsonResponse
from llamabox.wire.questions import CountTokens


async def chat_completion(exchange: Exchange) -> Response:
    """The messages through the model's template, then as any prompt."""
    hosted = exchange.hosted
    read_options = partial(chat_options, exchange.body, hosted.config, hosted.defaults, exchange.info)
    options, chat = await OPENAI.rendered_beside(exchange, read_options)
    calling = parse_calling(exchange.body, chat.conversation)
    options, plan = await plan_chat(hosted, exchange.body, options, chat, calling)
    prompts = await read_media(exchange, [cut_prompt(chat, exchange.info)])
    has_functions = chat.conversation.has_functions
    exchange = replace(exchange, chat=None)  # a stream, which has the exchange to its end, need not hold base64
    reply = TextReply(exchange, prompts, options, plan.parser if plan else None)
    inline = plan.inline if plan else None
    writer = ChatWriter(options, reply, exchange.info, has_functions=has_functions, inline=inline)
    return await reply.answer(writer)


async def apply_template(exchange: Exchange) -> Response:
    """`{"prompt": …}`: the text that chat would generate from, with /completion's marker where media stand."""
    marker = exchange.hosted.media_marker
    pieces = (await OPENAI.rendered(exchange)).cut()
    return JsonResponse({"prompt": "".join(piece if isinstance(piece, str) else marker for piece in pieces)})


async def input_tokens(exchange: Exchange) -> Response:
    """`{"input_tokens": n}`: what a chat with this body would be charged."""
    raw = cut_prompt(await OPENAI.rendered(exchange), exchange.info)
    [prompt] = await read_media(exchange, [raw])
    answer = await exchange.hosted.client.ask(CountTokens(prompt))
    return JsonResponse({"input_tokens": answer.n_tokens, "object": "response.input_tokens"})
