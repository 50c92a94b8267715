"""POST /v1/responses, and what its input would be charged: /v1/responses/input_tokens."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import Response

from llamabox import checks
from llamabox.background import spawn
from llamabox.checks import wrong
from llamabox.errors import ContextExceeded, LlamaboxError
from llamabox.server.api.openai.responses.conversation import read_input, rendered
from llamabox.server.api.openai.responses.fields import Wanted, parse_fields
from llamabox.server.api.openai.responses.output import new_id
from llamabox.server.api.openai.responses.storage.stored import (
    Responses,
    StoredResponse,
    in_background,
    recorded,
    with_ids,
)
from llamabox.server.api.openai.responses.tools import Toolbox, parse_tools
from llamabox.server.api.openai.responses.writer import ResponseWriter
from llamabox.server.conversation.planning import plan_chat
from llamabox.server.conversation.template_wishes import EFFORT
from llamabox.server.fields.grammar import header_warning
from llamabox.server.generation.prompts import cut_prompt, read_media
from llamabox.server.generation.reply import TextReply
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.hosted.site import site_of
from llamabox.server.http.json import JsonResponse
from llamabox.server.http.sse import EventStream
from llamabox.wire.questions import CountTokens


async def create_response(exchange: Exchange) -> Response:
    """The items through the model's template, then as any prompt.

    A conversation that is too long ends a stream in `response.failed`, by which Codex knows to make it shorter.
    """
    hosted, body = exchange.hosted, exchange.body
    wanted = parse_fields(body, hosted.config, hosted.defaults, exchange.info)
    toolbox = parse_tools(body)
    try:
        return await _respond(exchange, wanted, toolbox)
    except ContextExceeded as error:
        if not wanted.options.stream:
            raise
        writer = ResponseWriter(response_head(body, wanted, toolbox, is_stored=False), wanted, toolbox)
        return EventStream(
            _refused(error), ping_interval=wanted.options.ping_interval, failed=writer.failed, tells=ContextExceeded
        )


async def _refused(error: LlamaboxError) -> AsyncGenerator[bytes, None]:
    nothing: list[bytes] = []
    for chunk in nothing:
        yield chunk
    raise error


async def _respond(exchange: Exchange, wanted: Wanted, toolbox: Toolbox) -> Response:
    """The response. Raises ContextExceeded where the conversation is known to be too long before it is tokenised."""
    hosted, body = exchange.hosted, exchange.body
    calling = toolbox.calling()
    for kind in toolbox.dropped:
        exchange.record.warnings.append(header_warning(f"tools of type {kind} are not run here and were left out"))
    responses = Responses(hosted.responses, exchange.record.asker)
    is_stored = checks.flag(body, "store", True) and responses.is_on
    in_the_background = checks.flag(body, "background", False)
    if in_the_background and not is_stored:
        raise wrong("background", "needs the response to be stored: leave out `store`, and see --responses-store")
    spoken = await read_input(exchange, responses)
    wanted, chat = await rendered(exchange, spoken, toolbox, wanted)
    options, plan = await plan_chat(hosted, body, wanted.options, chat, calling)
    wanted = replace(wanted, options=options)
    head = response_head(body, wanted, toolbox, is_stored=is_stored)
    prompts = await read_media(exchange, [cut_prompt(chat, exchange.info)])
    reply = TextReply(exchange, prompts, options, plan.parser if plan else None)
    writer = ResponseWriter(head, wanted, toolbox)
    if not is_stored:
        return await answered(reply, writer, reply.chunks(writer), wanted)
    stored = StoredResponse(exchange.record.asker, spoken.history, with_ids(spoken.given), writer)
    if in_the_background:
        return started(exchange, reply, stored, responses, wanted)
    return await answered(reply, writer, recorded(reply.chunks(writer), stored, responses), wanted)


async def answered(
    reply: TextReply, writer: ResponseWriter, chunks: AsyncGenerator[bytes, None], wanted: Wanted
) -> Response:
    """The reply to a client that waits for it."""
    if wanted.options.stream:
        return reply.stream(chunks, failed=writer.failed, tells=ContextExceeded)
    async for _ in chunks:
        pass
    return await writer.whole(reply.choices)


def started(
    exchange: Exchange, reply: TextReply, stored: StoredResponse, responses: Responses, wanted: Wanted
) -> Response:
    """The reply to a client that does not: what there is at once, or a stream that it may leave and come back to."""
    hosted, lifecycle = exchange.hosted, site_of(HTTPConnection(exchange.scope)).lifecycle
    lease = exchange.lease.take_over()

    async def run() -> None:
        with lease, lifecycle:
            await in_background(reply.chunks(stored.writer), stored, responses)

    responses.keep(stored)
    stored.task = spawn(run(), f"response {stored.writer.object()['id']}")
    hosted.background.add(stored.task)
    stored.task.add_done_callback(hosted.background.discard)
    if wanted.options.stream:
        return EventStream(stored.log.follow(-1), ping_interval=wanted.options.ping_interval)
    return JsonResponse({**stored.writer.object(), "status": "queued"})


async def count_input(exchange: Exchange) -> Response:
    """`{"input_tokens": n}`: what a response with this body would be charged."""
    hosted = exchange.hosted
    wanted = parse_fields(exchange.body, hosted.config, hosted.defaults, exchange.info)
    spoken = await read_input(exchange, Responses(hosted.responses, exchange.record.asker))
    _, chat = await rendered(exchange, spoken, parse_tools(exchange.body), wanted)
    [prompt] = await read_media(exchange, [cut_prompt(chat, exchange.info)])
    answer = await hosted.client.ask(CountTokens(prompt))
    return JsonResponse({"object": "response.input_tokens", "input_tokens": answer.n_tokens})


def response_head(body: dict[str, Any], wanted: Wanted, toolbox: Toolbox, *, is_stored: bool) -> dict[str, Any]:
    """The response without what comes of its answer: what the request said, and what holds where it said nothing."""
    options = wanted.options
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": body.get("background", False),
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "model": options.model,
        "parallel_tool_calls": toolbox.parallel,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": wanted.wishes.get(EFFORT), "summary": wanted.summary},
        "service_tier": "default",
        "store": is_stored,
        "temperature": options.params.sampling.temperature,
        "text": wanted.text,
        "tool_choice": toolbox.choice,
        "tools": toolbox.echo,
        "top_logprobs": options.n_top or 0,
        "top_p": options.params.sampling.top_p,
        "truncation": "auto" if wanted.may_truncate else "disabled",
        **({"dropped_turns": wanted.n_dropped} if wanted.n_dropped else {}),
        "usage": None,
        **wanted.repeated,
    }
