"""GET /props: what a client may want to know before it asks; llama-box's flat settings and llama-server's in one."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamabox.errors import NotSupported
from llamabox.server.api.about.models import draft_model
from llamabox.server.fields.body import model_name
from llamabox.server.fields.request import parse_options
from llamabox.server.generation.settings import settings_object
from llamabox.server.hosted.site import site_of
from llamabox.server.hosted.text import HostedText
from llamabox.server.http.json import JsonResponse
from llamabox.wire.text_config import ModelInfo


async def props(request: Request) -> Response:
    """The settings and the model of a server that generates (docs/api.md, Props)."""
    site = site_of(request)
    hosted = site.serving(HostedText)
    info = hosted.info
    settings = settings_object(parse_options({}, hosted.config, hosted.defaults, info), info)
    embeds = {"pooling": info.pooling} if hosted.config.enable_embeddings else {}
    return JsonResponse(
        {
            "default_generation_settings": {**settings, "params": settings, "n_ctx": info.n_ctx},
            "total_slots": info.n_slots,
            "model_alias": model_name(hosted.config, info),
            "model_ftype": info.ftype,
            "model_path": info.path,
            **({"draft_model": draft_model(info.draft)} if info.draft else {}),
            "modalities": modalities(info),
            "media_marker": hosted.media_marker,
            "endpoint_slots": hosted.config.enable_slots,
            "endpoint_props": False,
            "endpoint_metrics": site.listen.enable_metrics,
            "chat_template": hosted.templates.source(info),
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
