"""POST /v1/completions: OpenAI's legacy route, with any native field on top."""

from __future__ import annotations

from starlette.responses import Response

from llamabox.server.beside import beside, n_values
from llamabox.server.endpoint import Exchange
from llamabox.server.openai_reply import openai_reply
from llamabox.server.params import Dialect, parse_options
from llamabox.server.prompts import parse_prompts


async def openai_completion(exchange: Exchange) -> Response:
    """Several prompts give choices prompt * n + sequence, and one sum of usage."""
    n = n_values(exchange.body.get("prompt"))
    prompts, _ = await beside(n, parse_prompts, exchange.body, exchange.info)
    options = parse_options(exchange.body, exchange.services.config, exchange.info, Dialect.COMPLETION)
    return await openai_reply(exchange, prompts, options, Dialect.COMPLETION)
