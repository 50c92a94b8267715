"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.responses import Response

from llamabox.chat.anthropic.tools import in_parallel
from llamabox.chat.messages import Conversation
from llamabox.server.api.anthropic import errors
from llamabox.server.api.anthropic.fields import (
    Thinking,
    check_shared,
    message_options,
    neutral_thinking,
    parse_thinking,
    wishes,
)
from llamabox.server.api.anthropic.writer import PING, MessageWriter
from llamabox.server.conversation.calling import Calling, chosen, make_tools
from llamabox.server.conversation.planning import plan_chat
from llamabox.server.conversation.rendering import Dialect
from llamabox.server.fields.grammar import header_warning
from llamabox.server.fields.request import Options
from llamabox.server.generation.prompts import cut_prompt, read_media
from llamabox.server.generation.reply import TextReply
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.http.json import JsonResponse
from llamabox.wire.questions import CountTokens

ANTHROPIC = Dialect("anthropic", wishes)


async def create_message(exchange: Exchange) -> Response:
    """The messages through the model's template, then as any prompt."""
    hosted, body, record = exchange.hosted, exchange.body, exchange.record

    def read() -> tuple[Options, Thinking]:
        return message_options(body, hosted.config, hosted.defaults, exchange.info), parse_thinking(body)

    (options, thinking), chat = await ANTHROPIC.rendered_beside(exchange, read)
    calling = calling_of(body, chat.conversation)
    options, plan = await plan_chat(hosted, neutral_thinking(body), options, chat, calling)
    if chat.conversation.notes:
        record.warnings.append(header_warning("; ".join(chat.conversation.notes)))
    prompts = await read_media(exchange, [cut_prompt(chat, exchange.info)])
    exchange = replace(exchange, chat=None)  # a stream, which has the exchange to its end, need not hold base64
    reply = TextReply(exchange, prompts, options, plan.parser if plan else None)
    writer = MessageWriter(options, shows_thoughts=thinking.is_shown)
    return await reply.answer(writer, ping=lambda: PING, failed=lambda error: errors.event(error, record.request_id))


async def count_tokens(exchange: Exchange) -> Response:
    """`{"input_tokens": n}`: what a message with this body would be charged."""
    check_shared(exchange.body)
    raw = cut_prompt(await ANTHROPIC.rendered(exchange), exchange.info)
    [prompt] = await read_media(exchange, [raw])
    answer = await exchange.hosted.client.ask(CountTokens(prompt))
    return JsonResponse({"input_tokens": answer.n_tokens})


def calling_of(body: dict[str, Any], conversation: Conversation) -> Calling | None:
    """The tools that an answer may call; None where there are none."""
    if not conversation.tools:
        return None
    given = zip(conversation.tool_fields, conversation.tools, strict=True)
    tools, notes = make_tools([(field, tool["function"]) for field, tool in given], schema="input_schema")
    names, must_call = chosen(conversation.tool_choice, list(tools))
    return Calling(tuple(tools[name] for name in names), must_call, in_parallel(body), notes)
