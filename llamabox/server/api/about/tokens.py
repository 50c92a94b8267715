"""POST /tokenize and /detokenize in llama.cpp's words and in vLLM's, GET /tokenizer_info."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llamabox import checks
from llamabox.checks import wrong
from llamabox.engine.request import PromptText
from llamabox.errors import BodyTooLarge
from llamabox.server.fields.prompt import MAX_TEXT, check_token, check_tokens
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.hosted.seams import TextService
from llamabox.server.hosted.site import site_of
from llamabox.server.hosted.text import HostedText
from llamabox.server.http.json import JsonArray, JsonResponse, dumps
from llamabox.server.http.threads import n_values, off_loop
from llamabox.wire.questions import Detokenise, Spell, TokenIds, Tokenise

MAX_TOKENS = 1 << 20

PIECES = 4096
"""Tokens whose pieces the worker is asked for in one question."""


async def tokenize(exchange: Exchange) -> Response:
    """`{"tokens": [ids]}`, or ids with their pieces."""
    body, client = exchange.body, exchange.hosted.client
    if "prompt" in body and "content" not in body:
        return await _tokenize_prompt(exchange)
    options = {
        "add_special": checks.flag(body, "add_special", False),
        "parse_special": checks.flag(body, "parse_special", True),
    }
    with_pieces = checks.flag(body, "with_pieces", False)
    content = await off_loop(n_values(body.get("content")), _parse_content, body, exchange.info.n_vocab)
    tokens = await client.ask(Tokenise(content, **options))
    if with_pieces:
        return JsonArray(_with_pieces(client, tokens), head=b'{"tokens":[', tail=b"]}")
    return _reply({}, tokens)


async def _tokenize_prompt(exchange: Exchange) -> Response:
    """vLLM's form: one text, as the beginning of a prompt unless the body says otherwise."""
    body, info = exchange.body, exchange.info
    text = checks.string("prompt", body["prompt"])
    if checks.n_bytes(text) > MAX_TEXT:
        raise BodyTooLarge(f"Field 'prompt': at most {MAX_TEXT} bytes of text can be tokenised at once")
    add_special = checks.flag(body, "add_special_tokens", True)
    question = Tokenise([text], add_special=add_special, parse_special=True)
    tokens = await exchange.hosted.client.ask(question)
    return _reply({"count": len(tokens), "max_model_len": info.n_ctx}, tokens)


def _reply(fields: dict[str, Any], tokens: TokenIds) -> Response:
    """Some fields, and all `tokens`. Where these are many, others have a turn while they are sent."""
    if len(tokens) <= PIECES:
        return JsonResponse({**fields, "tokens": tokens.part(0, PIECES)})
    return JsonArray(_in_parts(tokens), head=dumps({**fields, "tokens": []})[:-2], tail=b"]}")


async def _in_parts(tokens: TokenIds) -> AsyncIterator[bytes]:
    for start in range(0, len(tokens), PIECES):
        yield dumps(tokens.part(start, start + PIECES))[1:-1]


async def _with_pieces(client: TextService, tokens: TokenIds) -> AsyncIterator[bytes]:
    """A part after the other: a million objects in one message would hold up everybody at both of its ends."""
    for start in range(0, len(tokens), PIECES):
        part = tokens.part(start, start + PIECES)
        pieces = (await client.ask(Spell(part))).pieces
        yield dumps([{"id": token, "piece": _readable(piece)} for token, piece in zip(part, pieces, strict=True)])[1:-1]


def _readable(piece: bytes) -> str | list[int]:
    """As text; a piece that is no UTF-8 as a list of bytes."""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return list(piece)


async def detokenize(exchange: Exchange) -> Response:
    """`{"content": text, "prompt": text}`, the latter in vLLM's words."""
    n = n_values(exchange.body.get("tokens"))
    tokens = await off_loop(n, _parse_tokens, exchange.body, exchange.info.n_vocab)
    text = (await exchange.hosted.client.ask(Detokenise(tokens))).text
    return JsonResponse({"content": text, "prompt": text})


async def tokenizer_info(request: Request) -> Response:
    """What lm-evaluation-harness asks of a server whose vocabulary it uses."""
    hosted = site_of(request).serving(HostedText)
    info = hosted.info
    return JsonResponse(
        {
            "tokenizer_class": "GGUF",
            "vocab_size": info.n_vocab,
            "model_max_length": info.n_ctx,
            "add_bos_token": info.add_bos,
            "bos_token": info.bos_token or None,
            "eos_token": info.eos_token or None,
            "pad_token": None,
            "chat_template": hosted.templates.source(info),
        }
    )


def _parse_tokens(body: dict[str, Any], n_vocab: int) -> list[int]:
    tokens = body.get("tokens")
    if not isinstance(tokens, list):
        raise wrong("tokens", "must be provided as an array of token ids")
    _check_count("tokens", tokens)
    for token in tokens:
        check_token("tokens", token, n_vocab)
    return tokens


def _parse_content(body: dict[str, Any], n_vocab: int) -> PromptText:
    if "content" not in body:
        raise wrong("content", "must be provided: a string, or an array of strings and token ids")
    content = body["content"] if isinstance(body["content"], list) else [checks.string("content", body["content"])]
    _check_count("content", content)
    check_tokens("content", content, n_vocab)
    if sum(checks.n_bytes(item) for item in content if isinstance(item, str)) > MAX_TEXT:
        raise BodyTooLarge(f"Field 'content': at most {MAX_TEXT} bytes of text can be tokenised at once")
    return content


def _check_count(field: str, items: list[Any]) -> None:
    if len(items) > MAX_TOKENS:
        raise BodyTooLarge(f"Field '{field}': must have at most {MAX_TOKENS} entries, not {len(items)}")
