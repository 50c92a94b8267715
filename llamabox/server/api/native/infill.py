"""POST /infill, with `--infill`: what belongs between a prefix and a suffix. Answers as /completion does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.responses import Response

from llamabox import checks
from llamabox.checks import present, wrong
from llamabox.errors import BodyTooLarge
from llamabox.server.api.native.fields import native_options, parse_response_fields
from llamabox.server.api.native.writer import NativeWriter
from llamabox.server.fields.prompt import MAX_TEXT
from llamabox.server.generation.reply import TextReply
from llamabox.server.hosted.exchange import Exchange
from llamabox.wire.questions import LayOutInfill

MAX_CHUNKS = 4096
UNNAMED = "tmp"


async def infill(exchange: Exchange) -> Response:
    """One object, or a stream without [DONE]. 501 for a model without the tokens for it."""
    body = exchange.body
    texts = {
        "prefix": _text(body, "input_prefix"),
        "suffix": _text(body, "input_suffix"),
        "prompt": _text(body, "prompt", ""),
    }
    extra = _parse_extra(body)
    if sum(checks.n_bytes(text) for pair in (texts.values(), *extra) for text in pair) > MAX_TEXT:
        raise BodyTooLarge(f"prefix, suffix, prompt and extra may have {MAX_TEXT} bytes of text together")
    hosted = exchange.hosted
    options = native_options(body, hosted.config, hosted.defaults, exchange.info)
    options = replace(options, params=replace(options.params, return_prompt=False))  # it is known here
    fields = parse_response_fields(body)
    question = LayOutInfill(**texts, extra=extra, n_predict=options.params.n_predict)
    made = await hosted.client.ask(question)
    reply = TextReply(exchange, [[*made.tokens]], options)
    return await reply.answer(NativeWriter(options, reply, fields, shown=made.text))


def _text(body: dict[str, Any], field: str, default: str | None = None) -> str:
    value = body.get(field, default)
    if value is None:
        raise wrong(field, "is required")
    return checks.string(field, value)


def _parse_extra(body: dict[str, Any]) -> list[tuple[str, str]]:
    """File names and texts."""
    value = body.get("input_extra", [])
    if not isinstance(value, list):
        raise wrong("input_extra", f"must be an array of objects, not {checks.describe(value)}")
    if len(value) > MAX_CHUNKS:
        raise wrong("input_extra", f"must have at most {MAX_CHUNKS} entries, not {len(value)}")
    return [_parse_chunk(chunk) for chunk in value]


def _parse_chunk(chunk: Any) -> tuple[str, str]:
    if not isinstance(chunk, dict):
        raise wrong("input_extra", f"must hold objects, not {checks.describe(chunk)}")
    chunk = present(chunk)
    if not isinstance(chunk.get("text"), str):
        raise wrong("input_extra", 'each object must have "text", a string')
    if not isinstance(chunk.get("filename", ""), str):
        raise wrong("input_extra", '"filename" must be a string')
    return chunk.get("filename", UNNAMED), chunk["text"]
