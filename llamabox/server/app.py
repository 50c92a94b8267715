"""The Starlette apps, one for each kind of model: routes, middleware and error handlers put together."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

import llamabox
from llamabox.errors import LlamaboxError
from llamabox.imaging.config import ImageConfig
from llamabox.media.desk import MediaDesk
from llamabox.server.api.about.health import health
from llamabox.server.api.about.lora_adapters import LoraAdapters
from llamabox.server.api.about.metrics import metrics
from llamabox.server.api.about.models import Describe, found, listed, models
from llamabox.server.api.about.props import props, set_props
from llamabox.server.api.about.slot_files import slot_action
from llamabox.server.api.about.slots import slots
from llamabox.server.api.about.tokens import detokenize, tokenize
from llamabox.server.api.audio.route import TranscriptionRoute
from llamabox.server.api.embeddings.route import embeddings, openai_embeddings
from llamabox.server.api.images.info import image_models, image_props, image_slots
from llamabox.server.api.images.route import EditRoute, GenerationRoute
from llamabox.server.api.native.completion import completion
from llamabox.server.api.native.infill import infill
from llamabox.server.api.openai.chat.route import (
    apply_template,
    chat_completion,
    input_tokens,
    read_any_chat,
    read_fitting_chat,
)
from llamabox.server.api.openai.completions.route import openai_completion
from llamabox.server.api.rerank.route import rerank
from llamabox.server.config import ServerConfig
from llamabox.server.hosted.abilities import draws_only, generating, needs_images
from llamabox.server.hosted.exchange import Handler, JsonRoute, Read, read_json
from llamabox.server.hosted.seams import ImageService, TextService
from llamabox.server.hosted.services import ImageServices, Services, TextServices, media_reader
from llamabox.server.hosted.templating import Templates
from llamabox.server.http.errors import on_fault, on_http_exception, on_llamabox_error
from llamabox.server.http.middleware.chain import Auth, Gate, RequestId
from llamabox.server.http.middleware.pages import Cors, HostCheck
from llamabox.server.metrics.images import ImageMetrics
from llamabox.server.metrics.text import TextMetrics

Endpoint = Callable[[Request], Awaitable[Response]]

GET: dict[str, Endpoint] = {"/health": health, "/v1/health": health, "/metrics": metrics}
"""Routes of both kinds of server."""

TEXT_GET: dict[str, Endpoint] = {"/slots": slots}

IMAGE_GET: dict[str, Endpoint] = {"/slots": image_slots}

TEXT_POST: dict[str, tuple[Handler, str]] = {
    "/v1/chat/completions": (generating(chat_completion), "completion"),
    "/chat/completions": (generating(chat_completion), "completion"),
    "/v1/chat/completions/input_tokens": (input_tokens, "completion"),
    "/apply-template": (apply_template, "completion"),
    "/v1/completions": (generating(openai_completion), "completion"),
    "/completion": (generating(completion), "completion"),
    "/completions": (generating(completion), "completion"),
    "/infill": (generating(infill, "infill"), "infill"),
    "/v1/embeddings": (openai_embeddings, "embedding"),
    "/embeddings": (embeddings, "embedding"),
    "/embedding": (embeddings, "embedding"),
    "/v1/rerank": (rerank, "reranking"),
    "/v2/rerank": (rerank, "reranking"),
    "/v1/reranking": (rerank, "reranking"),
    "/rerank": (rerank, "reranking"),
    "/reranking": (rerank, "reranking"),
    "/tokenize": (tokenize, "tokenization"),
    "/detokenize": (detokenize, "tokenization"),
}
"""Handler by path, and the word for it in the refusal of a model that only draws."""

READERS: dict[str, Read] = {
    "/v1/chat/completions": read_fitting_chat,
    "/chat/completions": read_fitting_chat,
    "/v1/chat/completions/input_tokens": read_fitting_chat,
    "/apply-template": read_any_chat,
}
"""Readers of the bodies that are more than JSON."""

TRANSCRIPTIONS = ("/v1/audio/transcriptions", "/audio/transcriptions")

SLOT_FILES = "/slots/{id_slot}"

IMAGE_POST: dict[str, ASGIApp | Endpoint] = {
    "/v1/images/generations": GenerationRoute(),
    "/v1/images/edits": EditRoute(),
}


def create_app(config: ServerConfig, client: TextService, media: MediaDesk | None = None) -> Starlette:
    """The whole HTTP side over one text worker. Starts nothing; `app.state.services` is what run.py steers it by."""
    services = TextServices(
        config=config,
        client=client,
        metrics=TextMetrics(client),
        templates=Templates(config.chat_template),
        media=media or media_reader(config),
        media_marker=config.media_marker or f"<__media_{secrets.token_hex(16)}__>",
    )
    post: dict[str, ASGIApp | Endpoint] = {
        path: JsonRoute(handler, read=READERS.get(path, read_json)) for path, (handler, _) in TEXT_POST.items()
    }
    post[SLOT_FILES] = JsonRoute(slot_action, needs_body=False)
    post |= {path: TranscriptionRoute() for path in TRANSCRIPTIONS}
    post |= dict.fromkeys(IMAGE_POST, needs_images)
    return _put_together(services, GET | TEXT_GET | _models(models), post, props)


def create_image_app(config: ServerConfig, client: ImageService, images: ImageConfig) -> Starlette:
    """The whole HTTP side over one image worker. A language model's routes are a 403 (docs/api.md, Kinds of models)."""
    services = ImageServices(
        config=config, client=client, metrics=ImageMetrics(client), images=images, pictures=media_reader(config)
    )
    post: dict[str, ASGIApp | Endpoint] = {path: draws_only(what) for path, (_, what) in TEXT_POST.items()}
    post[SLOT_FILES] = draws_only("completion")
    post |= {path: draws_only("transcription") for path in TRANSCRIPTIONS}
    return _put_together(services, GET | IMAGE_GET | _models(image_models), post | IMAGE_POST, image_props)


def _models(describe: Describe) -> dict[str, Endpoint]:
    paths = ("/v1/models", "/models")
    return dict.fromkeys(paths, listed(describe)) | {path + "/{model:path}": found(describe) for path in paths}


def _put_together(
    services: Services, get: dict[str, Endpoint], post: dict[str, ASGIApp | Endpoint], get_props: Endpoint
) -> Starlette:
    config = services.config
    prefix = config.api_prefix
    routes: list[BaseRoute] = [Route(prefix + path, endpoint, methods=["GET"]) for path, endpoint in get.items()]
    routes += [Route(prefix + path, endpoint, methods=["POST"]) for path, endpoint in post.items()]
    routes += [Route(prefix + "/props", _by_method(GET=get_props, POST=set_props), methods=["GET", "POST"])]
    routes += [Route(prefix + "/lora-adapters", LoraAdapters(), methods=["GET", "POST"])]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(RequestId, server=f"llamabox/{llamabox.__version__}", prefix=prefix),
            Middleware(HostCheck, allowed=config.allowed_hosts),
            Middleware(Cors, origins=config.cors_origins, prefix=prefix, has_keys=bool(config.api_keys)),
            Middleware(Auth, keys=config.api_keys, prefix=prefix),
            Middleware(Gate, services=services),
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


def _by_method(**endpoints: Endpoint) -> Endpoint:
    """One path, one answer to each method; HEAD is GET."""

    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await endpoints[method](request)

    return endpoint
