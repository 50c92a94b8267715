"""POST /v1/embeddings, /embeddings and /embedding, with `--embeddings` or `--rerank` (docs/api.md, Embeddings)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from llamabox import checks
from llamabox.chat.messages import parse_messages
from llamabox.chat.template import RenderedChat
from llamabox.checks import describe, wrong
from llamabox.engine.events import Vector
from llamabox.engine.request import PromptText
from llamabox.errors import InvalidRequest, ServerFault
from llamabox.server.api.embeddings.inputs import NAMES, RANK, check_vectors, n_inputs, parse_inputs
from llamabox.server.fields.body import parse_model
from llamabox.server.fields.prompt import RawPrompt, check_fits
from llamabox.server.generation.prompts import read_media
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.http.json import JsonPieces, dumps
from llamabox.server.http.threads import n_values, off_loop
from llamabox.wire.text_config import ModelInfo

if TYPE_CHECKING:
    # It loads numpy, which a server of texts alone has no need of: a tenth of a second and 10 MB.
    from llamabox.server.api.embeddings.vectors import Rows, VectorFormat

UNPOOLED = "none"
MESSAGES = "messages"
"""What vLLM's clients send instead of an input."""

MAX_NORM = 1000
Write = Callable[[int, "Rows"], bytes]
"""An input's place and its vectors, as an item of the reply."""


async def openai_embeddings(exchange: Exchange) -> Response:
    """OpenAI's list of one vector for each input."""
    if exchange.info.pooling == UNPOOLED:
        raise InvalidRequest(
            "this server makes a vector for each token (--pooling none), which this route has no form for; "
            "POST /embeddings has, or start it with another pooling"
        )
    form = parse_format(exchange.body, exchange.hosted.config.embd_normalize, exchange.info)
    model = parse_model(exchange.body, exchange.hosted.config, exchange.info)
    inputs = await read_inputs(exchange)
    tail = b',"encoding_format":"base64"}' if form.as_base64 else b"}"

    def write(index: int, rows: Rows) -> bytes:
        return b'{"object":"embedding","index":%d,"embedding":%b' % (index, form.dumps(rows[0])) + tail

    items, n_tokens = await embed(exchange, inputs, form, write)
    head = {"object": "list", "model": model, "created": exchange.hosted.created}
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    return JsonPieces([dumps(head)[:-1] + b',"data":[', *items, b'],"usage":' + dumps(usage) + b"}"])


async def embeddings(exchange: Exchange) -> Response:
    """llama.cpp's array, with a list of vectors for each input: one, or without pooling one for each token."""
    form = parse_format(exchange.body, exchange.hosted.config.embd_normalize, exchange.info)
    inputs = await read_inputs(exchange)
    tail = b',"encoding_format":"base64"}' if form.as_base64 else b"}"

    def write(index: int, rows: Rows) -> bytes:
        return b'{"index":%d,"embedding":[%b]' % (index, b",".join(map(form.dumps, rows))) + tail

    items, _ = await embed(exchange, inputs, form, write)
    return JsonPieces([b"[", *items, b"]"])


async def read_inputs(exchange: Exchange) -> list[PromptText]:
    """The inputs with their media read. The request's body is empty afterwards where there are media."""
    body, info, marker = exchange.body, exchange.info, exchange.hosted.media_marker
    if MESSAGES in body:
        if given := next((name for name in NAMES if name in body), None):
            raise wrong(MESSAGES, f'is the conversation to embed, and so is "{given}"; send one of them')
        raw = [await read_conversation(exchange)]
    else:
        raw = await off_loop(n_inputs(body), parse_inputs, body, info, marker)
    return await read_media(exchange, raw)


async def read_conversation(exchange: Exchange) -> RawPrompt:
    """`messages` as one input, by the model's template. Nothing is to be answered, unless that is asked for.

    Raises InvalidRequest; ContextExceeded for a prompt that cannot fit.
    """
    body = {"add_generation_prompt": False, "continue_final_message": False, **exchange.body}
    conversation = await off_loop(n_values(body[MESSAGES]), parse_messages, body)
    text = await exchange.hosted.templates.render(exchange.info, conversation)
    prompt: RawPrompt = [*RenderedChat(conversation, text).cut()]
    check_fits(prompt, exchange.info)
    check_vectors(prompt, exchange.info)
    return prompt


def parse_format(body: dict[str, Any], default: int | None, info: ModelInfo) -> VectorFormat:
    """`encoding_format`, `dimensions` and `embd_normalize`, of which the server may have a `default`."""
    encoding = body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise wrong("encoding_format", f'must be "float" or "base64", not {describe(encoding)}')
    if default is None:
        default = -1 if info.pooling in (UNPOOLED, RANK) else 2  # a reranker's score would become 1 or -1
    norm = checks.whole(body, "embd_normalize", -1, MAX_NORM, default)
    n_floats = checks.whole(body, "dimensions", 1, info.n_vector, info.n_vector)
    from llamabox.server.api.embeddings.vectors import VectorFormat

    return VectorFormat(norm, n_floats, encoding == "base64")


async def embed(
    exchange: Exchange, inputs: list[PromptText], form: VectorFormat, write: Write
) -> tuple[list[bytes], int]:
    """Each input's item, with the comma between two of them, and the number of tokens in all.

    Written as the vectors come, so that many do not hold up the event loop, nor lie around in two forms at once.
    """
    items = [b""] * len(inputs)
    n_tokens = 0
    async with exchange.hosted.client.embed(inputs) as embedding:
        async for vectors in embedding:
            for vector in vectors:
                comma = b"," if vector.index else b""
                items[vector.index] = comma + write(vector.index, finite_rows(vector, form, exchange.info.n_vector))
                n_tokens += vector.n_tokens
            await asyncio.sleep(0)
    return items, n_tokens


def finite_rows(vector: Vector, form: VectorFormat, n_floats: int) -> Rows:
    """The vectors of one input in the request's form. Raises ServerFault for NaN and infinity, which JSON lacks."""
    rows = form.rows(vector.data, n_floats)
    if not form.are_finite(rows):
        raise ServerFault(f"the model gave no numbers for input {vector.index}")
    return rows
