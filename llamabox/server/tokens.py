"""POST /tokenize and /detokenize."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from llamabox.errors import BodyTooLarge
from llamabox.server import numbers
from llamabox.server.endpoint import Exchange
from llamabox.server.numbers import wrong
from llamabox.server.prompts import Prompt, check_tokens
from llamabox.server.responses.json import JsonResponse

MAX_TEXT = 4 << 20
"""Bytes of text to tokenise in one go: the worker's reader does it while streams run beside it."""

MAX_TOKENS = 1 << 20


async def tokenize(exchange: Exchange) -> Response:
    """`{"tokens": [ids]}`, or ids with their pieces."""
    body = exchange.body
    options = {"add_special": False, "parse_special": True, "with_pieces": False}
    for field in options:
        if field in body:
            options[field] = numbers.boolean(field, body[field])
    content = _parse_content(body, exchange.info.n_vocab)
    return JsonResponse(await exchange.services.client.call("tokenize", content=content, **options))


async def detokenize(exchange: Exchange) -> Response:
    """`{"content": text}`."""
    tokens = exchange.body.get("tokens")
    if not isinstance(tokens, list):
        raise wrong("tokens", "must be provided as an array of token ids")
    _check_count("tokens", tokens)
    for token in tokens:
        check_tokens("tokens", token, exchange.info.n_vocab)
    return JsonResponse(await exchange.services.client.call("detokenize", tokens=tokens))


def _parse_content(body: dict[str, Any], n_vocab: int) -> Prompt:
    if "content" not in body:
        raise wrong("content", "must be provided: a string, or an array of strings and token ids")
    content = body["content"] if isinstance(body["content"], list) else [numbers.string("content", body["content"])]
    _check_count("content", content)
    for item in content:
        if not isinstance(item, str):
            check_tokens("content", item, n_vocab)
    if sum(len(item.encode()) for item in content if isinstance(item, str)) > MAX_TEXT:
        raise BodyTooLarge(f"Field 'content': at most {MAX_TEXT} bytes of text can be tokenised at once")
    return content


def _check_count(field: str, items: list[Any]) -> None:
    if len(items) > MAX_TOKENS:
        raise BodyTooLarge(f"Field '{field}': must have at most {MAX_TOKENS} entries, not {len(items)}")
