"""GET /v1/models, /v1/models/{id} and the same without /v1: the one model there is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llamabox.errors import NotFound
from llamabox.server.fields.body import MAX_MODEL_NAME, aliases, model_name
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.hosted.model import Hosted
from llamabox.server.hosted.site import site_of
from llamabox.server.hosted.text import HostedText
from llamabox.server.http.json import JsonResponse
from llamabox.wire.text_config import DraftModelInfo, ModelInfo

Endpoint = Callable[[Request], Awaitable[Response]]


Describe = Callable[[Request], dict[str, Any]]
"""OpenAI's and Anthropic's list of models, with their facts in `meta`, and Ollama's."""


def listed(describe: Describe) -> Endpoint:
    """The list."""

    async def endpoint(request: Request) -> Response:
        return JsonResponse(describe(request))

    return endpoint


def found(describe: Describe) -> Endpoint:
    """The entry of the model that the path names, by its id or an alias, slashes included. NotFound for any other."""

    async def endpoint(request: Request) -> Response:
        name = request.path_params["model"]
        for entry in describe(request)["data"]:
            if name in (entry["id"], *entry["aliases"]):
                return JsonResponse(entry)
        raise NotFound(f"there is no model {name[:MAX_MODEL_NAME]!r}; GET /v1/models lists what is there")

    return endpoint


def models(request: Request) -> dict[str, Any]:
    """The models of a server with a language model."""
    hosted = site_of(request).serving(HostedText)
    info = hosted.info
    name = model_name(hosted.config, info)
    facts = {
        "vocab_type": info.vocab_type,
        "n_vocab": info.n_vocab,
        "n_ctx": info.n_ctx,
        "n_ctx_train": info.n_ctx_train,
        "n_embd": info.n_embd,
        "n_params": info.n_params,
        "size": info.size,
        "ftype": info.ftype,
        **({"split": info.split} if info.split else {}),
        **({"draft": draft_model(info.draft)} if info.draft else {}),
    }
    shown = as_ollama(name, capabilities(hosted.config, info), info.ftype)
    entry = as_openai(hosted, name, facts) | {"architecture": architecture(info), "max_input_tokens": info.n_ctx}
    return listing(entry, shown)


def listing(entry: dict[str, Any], shown: dict[str, Any]) -> dict[str, Any]:
    """A list of one model in the words of OpenAI, Anthropic and Ollama together."""
    ends = {"first_id": entry["id"], "last_id": entry["id"], "has_more": False}
    return {"object": "list", "data": [entry], **ends, "models": [shown]}


def draft_model(draft: DraftModelInfo) -> dict[str, Any]:
    """The facts of the model that drafts."""
    return {"path": draft.path, "ftype": draft.ftype, "n_params": draft.n_params, "size": draft.size}


def as_openai(hosted: Hosted, name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """One model as OpenAI and Anthropic list it, with the model's facts in `meta`."""
    return {
        "id": name,
        "object": "model",
        "type": "model",
        "display_name": name,
        "created": hosted.created,
        "created_at": datetime.fromtimestamp(hosted.created, UTC).isoformat(),
        "lifecycle": "active",
        "owned_by": "llama-box",
        "aliases": aliases(hosted.config),
        "tags": [],
        "meta": facts,
    }


def architecture(info: ModelInfo) -> dict[str, list[str]]:
    """What goes in and what comes out, as llama-server's router lists it."""
    media = info.media
    able = {"text": True, "image": media and media.has_vision, "audio": media and media.has_audio}
    return {"input_modalities": [name for name, is_there in able.items() if is_there], "output_modalities": ["text"]}


def capabilities(config: ModelConfig, info: ModelInfo) -> list[str]:
    """The model's abilities, in llama-server's words."""
    able = {
        "completion": info.generates,
        "embedding": config.enable_embeddings,
        "rerank": config.enable_rerank,
        "multimodal": info.media is not None,
    }
    return [name for name, is_there in able.items() if is_there]


def as_ollama(name: str, able: list[str], quantization: str) -> dict[str, Any]:
    """One model as llama-server lists it for clients of Ollama. Facts that neither server knows are empty."""
    return {
        "name": name,
        "model": name,
        "modified_at": "",
        "size": "",
        "digest": "",
        "type": "model",
        "description": "",
        "tags": [""],
        "capabilities": able,
        "parameters": "",
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "",
            "families": [""],
            "parameter_size": "",
            "quantization_level": quantization,
        },
    }
