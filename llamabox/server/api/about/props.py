"""GET /props: what a client may want to know before it asks; llama-box's flat settings and llama-server's in one."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamabox.errors import NotSupported
from llamabox.server.api.about.models import draft_model
from llamabox.server.fields.body import model_name
from llamabox.server.fields.request import Dialect, parse_options
from llamabox.server.generation.settings import settings_object
from llamabox.server.hosted.services import TextServices, services_of
from llamabox.server.http.json import JsonResponse
from llamabox.wire.text_config import ModelInfo


async def props(request: Request) -> Response:
    """The settings and the model of a server that generates (docs/api.md, Props)."""
    services = services_of(request, TextServices)
    info = services.model()
    settings = settings_object(parse_options({}, services.config, services.defaults, info, Dialect.NATIVE), info)
    embeds = {"pooling": info.pooling} if services.config.enable_embeddings else {}
    return JsonResponse(
        {
            "default_generation_settings": {**settings, "params": settings, "n_ctx": info.n_ctx},
            "total_slots": info.n_slots,
            "model_alias": model_name(services.config, info),
            "model_ftype": info.ftype,
            "model_path": info.path,
            **({"draft_model": draft_model(info.draft)} if info.draft else {}),
            "modalities": modalities(info),
            "media_marker": services.media_marker,
            "endpoint_slots": services.config.enable_slots,
            "endpoint_props": False,
            "endpoint_metrics": services.config.enable_metrics,
            "chat_template": services.templates.source(info),
            "bos_token": info.bos_token,
            "eos_token": info.eos_token,
            "build_info": info.build,
            "is_sleeping": False,
            "cors_proxy_enabled": False,
            **embeds,
        }
    )


def modalities(info: ModelInfo) -> dict[str, bool]:
    """What the model takes beside text, in llama-server's words."""
    media = info.media
    return {
        "vision": media is not None and media.has_vision,
        "audio": media is not None and media.has_audio,
        "video": False,
    }


async def set_props(request: Request) -> Response:
    """501: no property can be changed at run time."""
    raise NotSupported("This server does not change its properties at run time: POST /props is not supported")
