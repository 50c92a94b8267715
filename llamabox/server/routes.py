"""Every route: what it needs of the model, and who answers. One line an API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import request_response
from starlette.types import ASGIApp

from llamabox.server.api.about.health import health, root
from llamabox.server.api.about.lora_adapters import LoraScales, lora_adapters
from llamabox.server.api.about.metrics import metrics
from llamabox.server.api.about.models import found, listed, models
from llamabox.server.api.about.props import props, set_props
from llamabox.server.api.about.slot_files import slot_action
from llamabox.server.api.about.slots import slots
from llamabox.server.api.about.tokens import detokenize, tokenize, tokenizer_info
from llamabox.server.api.anthropic.errors import words_at
from llamabox.server.api.anthropic.route import ANTHROPIC, count_tokens, create_message
from llamabox.server.api.audio.route import TranscriptionRoute
from llamabox.server.api.embeddings.route import embeddings, openai_embeddings
from llamabox.server.api.images.info import image_models, image_props, image_slots
from llamabox.server.api.images.route import EditRoute, GenerationRoute
from llamabox.server.api.native.completion import completion
from llamabox.server.api.native.infill import infill
from llamabox.server.api.openai.chat.route import apply_template, chat_completion, input_tokens
from llamabox.server.api.openai.completions.route import openai_completion
from llamabox.server.api.openai.responses.compaction import compact_conversation
from llamabox.server.api.openai.responses.route import count_input, create_response
from llamabox.server.api.openai.responses.storage.retrieval import (
    RetrieveRoute,
    cancel_response,
    delete_response,
    input_items,
)
from llamabox.server.api.rerank.route import rerank
from llamabox.server.conversation.rendering import OPENAI
from llamabox.server.hosted.abilities import Ability
from llamabox.server.hosted.exchange import JsonRoute
from llamabox.server.http.errors import ErrorWords


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a method at some paths, where the model meets the need."""

    method: str  # GET answers HEAD as well
    paths: tuple[str, ...]
    needs: Ability | None
    app: ASGIApp


def get(paths: str, needs: Ability | None, view: Callable[[Request], Awaitable[Response]]) -> Route:
    """`paths` have blanks between them."""
    return Route("GET", tuple(paths.split()), needs, request_response(view))


def post(paths: str, needs: Ability | None, app: ASGIApp) -> Route:
    """`paths` have blanks between them."""
    return Route("POST", tuple(paths.split()), needs, app)


MODELS = "/v1/models /models"
MODEL = "/v1/models/{model:path} /models/{model:path}"

ROUTES = (
    get("/", None, root),
    get("/health /v1/health", None, health),
    get("/metrics", None, metrics),
    get("/props", Ability.LANGUAGE, props),
    get("/props", Ability.DRAW, image_props),
    post("/props", None, request_response(set_props)),
    get(MODELS, Ability.LANGUAGE, listed(models)),
    get(MODELS, Ability.DRAW, listed(image_models)),
    get(MODEL, Ability.LANGUAGE, found(models)),
    get(MODEL, Ability.DRAW, found(image_models)),
    get("/slots", Ability.SHOW_SLOTS, slots),
    get("/slots", Ability.SHOW_JOBS, image_slots),
    post("/slots/{id_slot}", Ability.KEEP_SLOTS, JsonRoute(slot_action, needs_body=False)),
    get("/lora-adapters", Ability.LORA, lora_adapters),
    post("/lora-adapters", Ability.LORA, LoraScales()),
    post(
        "/v1/chat/completions /chat/completions",
        Ability.GENERATE,
        JsonRoute(chat_completion, read=OPENAI.read_fitting),
    ),
    post("/v1/responses /responses", Ability.GENERATE, JsonRoute(create_response)),
    Route("GET", ("/v1/responses/{id}", "/responses/{id}"), Ability.GENERATE, RetrieveRoute()),
    Route("DELETE", ("/v1/responses/{id}", "/responses/{id}"), Ability.GENERATE, request_response(delete_response)),
    post("/v1/responses/{id}/cancel", Ability.GENERATE, request_response(cancel_response)),
    get("/v1/responses/{id}/input_items", Ability.GENERATE, input_items),
    post("/v1/responses/compact /responses/compact", Ability.GENERATE, JsonRoute(compact_conversation)),
    post("/v1/responses/input_tokens", Ability.LANGUAGE, JsonRoute(count_input)),
    post(
        "/v1/chat/completions/input_tokens /chat/completions/input_tokens",
        Ability.LANGUAGE,
        JsonRoute(input_tokens, read=OPENAI.read_fitting),
    ),
    post("/apply-template", Ability.LANGUAGE, JsonRoute(apply_template, read=OPENAI.read_any)),
    post("/v1/messages", Ability.GENERATE, JsonRoute(create_message, read=ANTHROPIC.read_fitting)),
    post("/v1/messages/count_tokens", Ability.LANGUAGE, JsonRoute(count_tokens, read=ANTHROPIC.read_any)),
    post("/v1/completions", Ability.GENERATE, JsonRoute(openai_completion)),
    post("/completion /completions", Ability.GENERATE, JsonRoute(completion)),
    post("/infill", Ability.INFILL, JsonRoute(infill)),
    post("/v1/audio/transcriptions /audio/transcriptions", Ability.HEAR, TranscriptionRoute()),
    post("/v1/embeddings", Ability.EMBED, JsonRoute(openai_embeddings)),
    post("/embeddings /embedding", Ability.EMBED, JsonRoute(embeddings)),
    post("/v1/rerank /v2/rerank /v1/reranking /rerank /reranking", Ability.RERANK, JsonRoute(rerank)),
    post("/tokenize", Ability.TOKENS, JsonRoute(tokenize)),
    post("/detokenize", Ability.TOKENS, JsonRoute(detokenize)),
    get("/tokenizer_info", Ability.TOKENS, tokenizer_info),
    post("/v1/images/generations", Ability.DRAW, GenerationRoute()),
    post("/v1/images/edits", Ability.DRAW, EditRoute()),
)
"""A path and method may have a row for each kind of model: the first whose need is met answers."""


def error_words(path: str) -> ErrorWords | None:
    """How errors are told at a path, without the prefix; None: in OpenAI's words."""
    return words_at(path)
