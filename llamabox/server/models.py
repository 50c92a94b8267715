"""GET /v1/models and /models: the one model there is."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamabox.server.params import model_name
from llamabox.server.responses.json import JsonResponse
from llamabox.server.services import services_of


async def models(request: Request) -> Response:
    """OpenAI's list, with the model's facts in `meta`."""
    services = services_of(request)
    info = services.model()
    entry = {
        "id": model_name(services.config, info),
        "object": "model",
        "created": services.created,
        "owned_by": "llama-box",
        "aliases": [],
        "tags": [],
        "meta": {
            "vocab_type": info.vocab_type,
            "n_vocab": info.n_vocab,
            "n_ctx": info.n_ctx,
            "n_ctx_train": info.n_ctx_train,
            "n_embd": info.n_embd,
            "n_params": info.n_params,
            "size": info.size,
            "ftype": info.ftype,
        },
    }
    return JsonResponse({"object": "list", "data": [entry]})
