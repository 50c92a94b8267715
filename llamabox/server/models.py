"""GET /v1/models and /models: the one model there is."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llamabox.server.config import ServerConfig
from llamabox.server.params import aliases, model_name
from llamabox.server.responses.json import JsonResponse
from llamabox.server.services import Services, TextServices, services_of
from llamabox.workers.text_config import ModelInfo


async def models(request: Request) -> Response:
    """OpenAI's list, with the model's facts in `meta`, and Ollama's."""
    services = services_of(request, TextServices)
    info = services.model()
    name = model_name(services.config, info)
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
    }
    listed = as_ollama(name, capabilities(services.config, info), info.ftype)
    return JsonResponse({"object": "list", "data": [as_openai(services, name, facts)], "models": [listed]})


def as_openai(services: Services, name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """As OpenAI lists it, with the model's facts in `meta`."""
    return {
        "id": name,
        "object": "model",
        "created": services.created,
        "owned_by": "llama-box",
        "aliases": aliases(services.config),
        "tags": [],
        "meta": facts,
    }


def capabilities(config: ServerConfig, info: ModelInfo) -> list[str]:
    """What can be asked of the model."""
    able = {"completion": info.generates, "embedding": config.enable_embeddings, "rerank": config.enable_rerank}
    return [name for name, is_there in able.items() if is_there]


def as_ollama(name: str, able: list[str], quantization: str) -> dict[str, Any]:
    """As llama-server lists it for clients that were made for Ollama; what neither knows is empty."""
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
