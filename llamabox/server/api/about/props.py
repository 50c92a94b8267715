"""GET /props: what a client may want to know before it asks; llama-box's flat settings and llama-server's in one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llamabox.chat.formats.form import GENERIC, PLAIN
from llamabox.errors import NotSupported
from llamabox.server.api.about.models import draft_model
from llamabox.server.conversation.template_wishes import can_keep_thoughts, can_switch, has_effort
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
    options = parse_options({}, hosted.config, hosted.defaults, info)
    words = replace(options.answer, reasoning_format=hosted.config.chat.reasoning_format)
    settings = settings_object(replace(options, answer=words), info)
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
            **await _chats(hosted),
            "bos_token": info.bos_token,
            "eos_token": info.eos_token,
            "build_info": info.build,
            "is_sleeping": False,
            "cors_proxy_enabled": False,
            **embeds,
        }
    )


async def _chats(hosted: HostedText) -> dict[str, Any]:
    """How the model writes, as far as its template tells, and in llama-server's words what that can take."""
    info, source = hosted.info, hosted.templates.source(hosted.info)
    form, can = await hosted.templates.form(info), await hosted.templates.capabilities(info)
    known = {
        "thoughts": form.thought is not None or form.channels is not None,
        "tool_calls": form.name not in (GENERIC.name, PLAIN.name),
        "thinking_switch": can_switch(source),
    }
    if can is None:
        return {"chat_format": form.name, "chat_format_known": known, "chat_template_caps": {}}
    plain, tooled = can
    caps = {
        "supports_string_content": plain.user_content != "parts",
        "supports_typed_content": plain.user_content != "text",
        "supports_tools": tooled.tools == "shown",
        "supports_tool_calls": tooled.calls != "words",
        "supports_parallel_tool_calls": tooled.calls != "words" and tooled.parallel == "one",
        "supports_system_role": plain.system != "nowhere",
        "supports_preserve_reasoning": can_keep_thoughts(source),
        "supports_reasoning_effort": has_effort(source),
        "supports_object_arguments": tooled.calls == "object",
    }
    known["parallel_tool_calls"] = known["tool_calls"] and caps["supports_parallel_tool_calls"]
    return {"chat_format": form.name, "chat_format_known": known, "chat_template_caps": caps}


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
