"""POST /v1/chat/completions and what shows its prompt: /apply-template, /v1/chat/completions/input_tokens."""

from __future__ import annotations

from dataclasses import replace

from starlette.responses import Response

from llamabox.chat.messages import Conversation, parse_messages
from llamabox.server.endpoint import Exchange
from llamabox.server.numbers import wrong
from llamabox.server.openai_reply import openai_reply
from llamabox.server.params import Dialect, parse_options
from llamabox.server.prompts import check_fits
from llamabox.server.responses.json import JsonResponse
from llamabox.server.template_wishes import template_wishes


async def chat_completion(exchange: Exchange) -> Response:
    """The messages through the model's template, then as any prompt."""
    options = parse_options(exchange.body, exchange.services.config, exchange.info, Dialect.CHAT)
    conversation = _conversation(exchange)
    if conversation.tools:
        raise wrong("tools", 'tools are not supported by this server; leave them out or say "tool_choice": "none"')
    prompt = await exchange.services.templates.render(exchange.info, conversation)
    check_fits([prompt], exchange.info)
    return await openai_reply(exchange, [[prompt]], options, Dialect.CHAT)


async def apply_template(exchange: Exchange) -> Response:
    """`{"prompt": …}`: the text that chat would generate from."""
    return JsonResponse({"prompt": await _render(exchange)})


async def input_tokens(exchange: Exchange) -> Response:
    """`{"input_tokens": n}`: what a chat with this body would be charged."""
    prompt = await _render(exchange)
    check_fits([prompt], exchange.info)
    reply = await exchange.services.client.call("tokenize", content=[prompt], add_special=True, parse_special=True)
    return JsonResponse({"input_tokens": len(reply["tokens"]), "object": "response.input_tokens"})


async def _render(exchange: Exchange) -> str:
    return await exchange.services.templates.render(exchange.info, _conversation(exchange))


def _conversation(exchange: Exchange) -> Conversation:
    """What the body's own `chat_template_kwargs` say counts more than what its other fields come to."""
    conversation = parse_messages(exchange.body)
    wishes = template_wishes(exchange.body, exchange.services.templates.source(exchange.info))
    return replace(conversation, template_kwargs=wishes | conversation.template_kwargs) if wishes else conversation
