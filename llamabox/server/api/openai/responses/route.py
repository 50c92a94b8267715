"""POST /v1/responses, and what its input would be charged: /v1/responses/input_tokens."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from llamabox.chat.messages import Conversation, template_kwargs
from llamabox.chat.template import RenderedChat
from llamabox.checks import string, wrong
from llamabox.server.api.openai.responses.fields import Wanted, parse_fields
from llamabox.server.api.openai.responses.items import Transcript
from llamabox.server.api.openai.responses.output import new_id
from llamabox.server.api.openai.responses.tools import Toolbox, parse_tools
from llamabox.server.api.openai.responses.writer import ResponseWriter
from llamabox.server.conversation.planning import plan_chat
from llamabox.server.conversation.rendering import render
from llamabox.server.conversation.template_wishes import EFFORT, reads_wish
from llamabox.server.fields.grammar import header_warning
from llamabox.server.generation.prompts import cut_prompt, read_media
from llamabox.server.generation.reply import TextReply
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.http.json import JsonResponse
from llamabox.server.http.threads import n_values, off_loop
from llamabox.wire.questions import CountTokens

VALUES_AN_ITEM = 16
"""An item's fields and parts, as `off_loop` counts them."""


async def create_response(exchange: Exchange) -> Response:
    """The items through the model's template, then as any prompt."""
    hosted, body = exchange.hosted, exchange.body
    wanted = parse_fields(body, hosted.config, hosted.defaults, exchange.info)
    toolbox = parse_tools(body)
    calling = toolbox.calling()
    wanted = replace(wanted, wishes=known_wishes(exchange, wanted.wishes))
    for kind in toolbox.dropped:
        exchange.record.warnings.append(header_warning(f"tools of type {kind} are not run here and were left out"))
    chat = await rendered(exchange, toolbox, wanted)
    options, plan = await plan_chat(hosted, body, wanted.options, chat, calling)
    wanted = replace(wanted, options=options)
    head = response_head(body, wanted, toolbox)
    prompts = await read_media(exchange, [cut_prompt(chat, exchange.info)])
    reply = TextReply(exchange, prompts, options, plan.parser if plan else None)
    writer = ResponseWriter(head, wanted, toolbox, reply)
    if options.stream:
        return await reply.answer(writer, failed=writer.failed)
    async for _ in reply.chunks(writer):
        pass
    return await writer.whole(reply.choices)


async def count_input(exchange: Exchange) -> Response:
    """`{"input_tokens": n}`: what a response with this body would be charged."""
    hosted = exchange.hosted
    wanted = parse_fields(exchange.body, hosted.config, hosted.defaults, exchange.info)
    wanted = replace(wanted, wishes=known_wishes(exchange, wanted.wishes))
    chat = await rendered(exchange, parse_tools(exchange.body), wanted)
    [prompt] = await read_media(exchange, [cut_prompt(chat, exchange.info)])
    answer = await hosted.client.ask(CountTokens(prompt))
    return JsonResponse({"object": "response.input_tokens", "input_tokens": answer.n_tokens})


async def rendered(exchange: Exchange, toolbox: Toolbox, wanted: Wanted) -> RenderedChat:
    """The conversation and its prompt."""
    body = exchange.body
    transcript = await off_loop(n_values(body.get("input")) * VALUES_AN_ITEM, read_input, body)
    for kind in sorted(transcript.dropped):
        exchange.record.warnings.append(header_warning(f"items of type {kind} are not known here and were left out"))
    conversation = Conversation(
        messages=tuple(transcript.messages),
        tools=toolbox.shown,
        template_kwargs=template_kwargs(body),
        media=tuple(transcript.markers.sources),
        marker=transcript.markers.random,
    )
    return await render(exchange.hosted, wanted.wishes, conversation)


def read_input(body: dict[str, Any]) -> Transcript:
    """`instructions` and `input`. Raises InvalidRequest naming the field."""
    transcript = Transcript()
    if "instructions" in body:
        transcript.say("system", string("instructions", body["instructions"]))
    if "input" not in body:
        raise wrong("input", "is required: a text, or an array of items")
    transcript.read(body["input"], "input")
    if not transcript.messages:
        raise wrong("input", "must not be empty")
    return transcript


def known_wishes(exchange: Exchange, wishes: dict[str, Any]) -> dict[str, Any]:
    """Those wishes that the model's template has variables for.

    Clients of this API send an effort whatever the model is, so one that cannot be fulfilled is told in a warning.
    """
    source = exchange.hosted.templates.source(exchange.info)
    known = {}
    for name, value in wishes.items():
        if reads_wish(name, source):
            known[name] = value
        else:
            told = f"the template of this model has no variable for {name}, so it changes nothing"
            exchange.record.warnings.append(header_warning(told))
    return known


def response_head(body: dict[str, Any], wanted: Wanted, toolbox: Toolbox) -> dict[str, Any]:
    """The response without what comes of its answer: what the request said, and what holds where it said nothing."""
    options = wanted.options
    reasoning = {"effort": wanted.wishes.get(EFFORT), "summary": wanted.summary}
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "model": options.model,
        "parallel_tool_calls": toolbox.parallel,
        "previous_response_id": None,
        "reasoning": reasoning,
        "service_tier": "default",
        "store": False,
        "temperature": options.params.sampling.temperature,
        "text": wanted.text,
        "tool_choice": toolbox.choice,
        "tools": toolbox.echo,
        "top_logprobs": options.n_top or 0,
        "top_p": options.params.sampling.top_p,
        "truncation": "disabled",
        "usage": None,
        **wanted.repeated,
    }
