"""The Starlette app: routes, middleware and error handlers put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

import llamabox
from llamabox.errors import LlamaboxError, NotSupported
from llamabox.server.chat import apply_template, chat_completion, input_tokens
from llamabox.server.completions import completion
from llamabox.server.config import ServerConfig
from llamabox.server.embeddings import embeddings, openai_embeddings
from llamabox.server.endpoint import Handler, JsonRoute
from llamabox.server.errors import on_fault, on_http_exception, on_llamabox_error
from llamabox.server.health import health
from llamabox.server.infill import infill
from llamabox.server.kinds import generating
from llamabox.server.lora_adapters import BODY, lora_adapters, set_lora_adapters
from llamabox.server.metrics import Metrics
from llamabox.server.middleware import Admission, Auth, Cors, RequestId
from llamabox.server.models import models
from llamabox.server.openai_completions import openai_completion
from llamabox.server.props import props, set_props
from llamabox.server.rerank import rerank
from llamabox.server.scrape import metrics
from llamabox.server.seams import TextService
from llamabox.server.services import Services
from llamabox.server.slot_files import slot_action
from llamabox.server.slots import slots
from llamabox.server.templating import Templates
from llamabox.server.tokens import detokenize, tokenize

GET: dict[str, Callable[[Request], Awaitable[Response]]] = {
    "/health": health,
    "/v1/health": health,
    "/v1/models": models,
    "/models": models,
    "/slots": slots,
    "/metrics": metrics,
}

POST: dict[str, Handler] = {
    "/v1/chat/completions": generating(chat_completion),
    "/chat/completions": generating(chat_completion),
    "/v1/chat/completions/input_tokens": input_tokens,
    "/apply-template": apply_template,
    "/v1/completions": generating(openai_completion),
    "/completion": generating(completion),
    "/completions": generating(completion),
    "/infill": generating(infill, "infill"),
    "/v1/embeddings": openai_embeddings,
    "/embeddings": embeddings,
    "/embedding": embeddings,
    "/v1/rerank": rerank,
    "/v2/rerank": rerank,
    "/v1/reranking": rerank,
    "/rerank": rerank,
    "/reranking": rerank,
    "/tokenize": tokenize,
    "/detokenize": detokenize,
}

MISSING: dict[str, str] = {
    "/v1/images/generations": "image generation (--images)",
    "/v1/images/edits": "image edits (--images)",
}
"""Routes that llama-box has and this server does not: 501 with the name of what is missing (contract D-1)."""


def create_app(config: ServerConfig, client: TextService) -> Starlette:
    """The whole HTTP side over one text worker. Starts nothing; `app.state.services` is what run.py steers it by."""
    services = Services(config, client, Templates(config.chat_template), Metrics(client))
    app = Starlette(
        routes=_routes(config.api_prefix),
        middleware=[
            Middleware(RequestId, server=f"llamabox/{llamabox.__version__}", prefix=config.api_prefix),
            Middleware(Cors, origins=config.cors_origins),
            Middleware(Auth, keys=config.api_keys, prefix=config.api_prefix),
            Middleware(Admission, services=services),
        ],
        exception_handlers={
            LlamaboxError: on_llamabox_error,
            HTTPException: on_http_exception,
            Exception: on_fault,
        },
    )
    app.router.redirect_slashes = False
    app.state.services = services
    return app


def _routes(prefix: str) -> list[BaseRoute]:
    routes: list[BaseRoute] = [Route(prefix + path, endpoint, methods=["GET"]) for path, endpoint in GET.items()]
    routes += [Route(prefix + path, JsonRoute(handler), methods=["POST"]) for path, handler in POST.items()]
    routes += [Route(prefix + "/props", _by_method(GET=props, POST=set_props), methods=["GET", "POST"])]
    adapters = ByMethod(lora_adapters, JsonRoute(set_lora_adapters, array_as=BODY))
    routes += [Route(prefix + "/lora-adapters", adapters, methods=["GET", "POST"])]
    routes += [Route(prefix + "/slots/{id_slot}", JsonRoute(slot_action, needs_body=False), methods=["POST"])]
    every = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    routes += [Route(prefix + path, _missing(what), methods=every) for path, what in MISSING.items()]
    return routes


def _by_method(
    **endpoints: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """One path, one answer to each method; HEAD is GET."""

    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await endpoints[method](request)

    return endpoint


class ByMethod:
    """An ASGI app: one path with an endpoint for GET and a route with a body for POST."""

    def __init__(self, get: Callable[[Request], Awaitable[Response]], post: JsonRoute) -> None:
        self._get = get
        self._post = post

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            await self._post(scope, receive, send)
        else:
            response = await self._get(Request(scope, receive))
            await response(scope, receive, send)


def _missing(what: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        raise NotSupported(f"This server does not support {what}")

    return endpoint
