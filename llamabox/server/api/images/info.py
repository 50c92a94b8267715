"""GET /v1/models, /props and /slots of a server that draws."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llamabox.clients.image.client import JobState
from llamabox.errors import Unavailable
from llamabox.server.api.about.models import as_ollama, as_openai, listing
from llamabox.server.fields.body import model_name
from llamabox.server.hosted.images import HostedImages
from llamabox.server.hosted.site import site_of
from llamabox.server.http.json import JsonResponse

IDLE, WAITING, DRAWING = 0, 1, 4
"""llama-box's `state` numbers."""


def image_models(request: Request) -> dict[str, Any]:
    """The one model, with the defaults of a request."""
    hosted = site_of(request).serving(HostedImages)
    info = hosted.info
    name = model_name(hosted.config, info)
    facts = {
        "family": info.family,
        "default_size": f"{info.width}x{info.height}",
        "max_batch_count": hosted.images.max_batch,
        "samplers": info.samplers,
        "schedules": info.schedules,
        **_settings(hosted),
    }
    return listing(as_openai(hosted, name, facts), as_ollama(name, ["image"], ""))


async def image_props(request: Request) -> Response:
    """The settings and the model of a server that draws (docs/api.md, Props)."""
    site = site_of(request)
    hosted = site.serving(HostedImages)
    info = hosted.info
    settings = _settings(hosted)
    return JsonResponse(
        {
            "default_generation_settings": {**settings, "params": settings},
            "total_slots": 1 + hosted.images.n_parallel,
            "model_alias": model_name(hosted.config, info),
            "model_path": info.path,
            "modalities": {"vision": False, "audio": False, "video": False},
            "endpoint_slots": hosted.config.enable_slots,
            "endpoint_props": False,
            "endpoint_metrics": site.listen.enable_metrics,
            "chat_template": "",
            "build_info": info.library,
            "is_sleeping": False,
            "cors_proxy_enabled": False,
        }
    )


async def image_slots(request: Request) -> Response:
    """Slot 0 draws, the others are places of waiting jobs. 503 with `fail_on_no_slot` when all are taken."""
    hosted = site_of(request).serving(HostedImages)
    queue = hosted.client.queue
    n_places = 1 + hosted.images.n_parallel
    if "fail_on_no_slot" in request.query_params and queue.n_running + queue.n_waiting >= n_places:
        raise Unavailable("no slot available")
    waiting = list(queue.jobs)
    drawn = waiting.pop(0) if queue.n_running else None
    places = [drawn, *waiting]
    places += [None] * (n_places - len(places))
    settings = _settings(hosted)
    return JsonResponse([{"id": i, **_slot(job, is_drawn=i == 0), **settings} for i, job in enumerate(places)])


def _slot(job: JobState | None, *, is_drawn: bool) -> dict[str, Any]:
    if job is None:
        return {"id_task": -1, "is_processing": False, "state": IDLE}
    return {
        "id_task": int(job.request_id),
        "is_processing": True,
        "state": DRAWING if is_drawn else WAITING,
        "index": job.index,
        "n": job.n,
        "progressed_steps": job.step,
        "progress_steps": job.steps,
    }


def _settings(hosted: HostedImages) -> dict[str, Any]:
    """The settings of a request without fields (docs/api.md, Props)."""
    info, images = hosted.info, hosted.images
    seed = hosted.defaults.sampling.seed
    return {
        "model": info.path,
        "seed": seed,
        "seed_cur": seed,
        "max_batch_count": images.max_batch,
        "max_height": images.max_height,
        "max_width": images.max_width,
        "height": info.height,
        "width": info.width,
        "guidance": info.guidance,
        "strength": info.strength,
        "sampler": info.sampler,
        "cfg_scale": info.cfg_scale,
        "sample_steps": info.steps,
        "schedule": info.schedule,
        "clip_l_model": images.clip_l_model,
        "clip_g_model": images.clip_g_model,
        "t5xxl_model": images.t5xxl_model,
        "vae_model": images.vae_model,
        "vae_tiling": images.vae_tiling,
        "taesd_model": images.taesd_model,
        "upscale_model": images.upscale_model,
        "upscale_repeats": images.upscale_repeats,
        "control_net_model": images.control_net_model,
        "control_strength": images.control_strength,
        "control_canny": images.control_canny,
    }
