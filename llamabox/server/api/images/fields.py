"""The fields of an image request into a job and how its answer is to look. Every number is checked here."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from llamabox import checks
from llamabox.checks import describe, first_present, present, wrong
from llamabox.engine.request import RANDOM_SEED
from llamabox.imaging.config import ImageModelInfo
from llamabox.imaging.job import ImageJob
from llamabox.server.fields.body import parse_model, parse_ping
from llamabox.server.fields.lora import parse_lora
from llamabox.server.fields.sampling import parse_seed
from llamabox.server.fields.unsupported import Neutral, is_empty, never, only, refuse
from llamabox.server.hosted.images import HostedImages

SAMPLER = ("sampler", "sample_method")
SCHEDULE = ("schedule", "schedule_method", "scheduler")
STEPS = ("sample_steps", "sampling_steps", "steps")
NEGATIVE = ("negative_prompt", "negative_sampler")
SLG_LAYERS = ("slg_skip_layers", "slg_layers")
"""Names of one field each: the first that is present counts. `negative_sampler` is llama-box's own."""

LITERAL = frozenset(
    {"n", "seed", "cfg_scale", "guidance", "strength", "eta", "clip_skip", "slg_scale", "slg_start", "slg_end"}
    | {"control_strength", "control_canny", "stream", "stream_options", "sse_ping_interval", "partial_images", "lora"}
    | {*STEPS, *SLG_LAYERS}
)
"""Fields whose text in a form is read as JSON; all others are texts."""

FREE_TEXT = frozenset({"prompt", "user"})
"""Fields where a form's `null` is a word."""

OPTIONS = "stream_options"

SMALLEST = 256
"""Pixels of either side; the worker draws more where a model needs a round number, and cuts it off."""

MAX_STEPS = 500
MAX_PROMPT = 32_000
"""Characters, of the negative prompt as well."""

MAX_SCALE = 100.0
MAX_LAYERS = 64
HD_STEPS = 10
PING_SECONDS = 5.0
"""The longest silence of a stream: a step may take minutes, and proxies cut silent connections."""

SMALLEST_CHUNK, USUAL_CHUNK = 1024, 4096

PREVIEWS = {"faster": "fast", True: "full", False: "none"}
QUALITIES = dict.fromkeys(("auto", "low", "medium", "standard"), "") | dict.fromkeys(
    ("high", "xhigh", "max", "hd"), "low quality"
)
STYLES = {"vivid": "not vivid", "natural": "unnatural"}
"""Values of `quality` and `style`, and the words that each adds to the negative prompt."""


REFUSED: dict[str, Neutral] = {
    "response_format": only("b64_json"),
    "output_format": only("png"),
    "background": only("auto", "opaque"),
    "input_fidelity": only("low"),
    "output_compression": only(100),
    "frame_count": only(1),
    "frame_duration_ms": never,
    "complexity": never,
    "markup": is_empty,
    "svg": is_empty,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """A parsed request without its pictures."""

    job: ImageJob
    model: str  # to be shown in the reply
    stream: bool
    include_usage: bool
    for_openai: bool  # chunks bear the fields of OpenAI's events as well
    chunk_size: int  # characters of a picture in a chunk; 0: all
    n_previews: int | None  # of each image at most; None: one a step
    ping_interval: float  # seconds; 0: no pings


def from_form(form: Mapping[str, str]) -> dict[str, Any]:
    """A form's texts as the JSON they stand for; empty ones and `null` are left out.

    `stream_options` may be JSON, or a field each: `stream_options[preview]` or `stream_options_preview`.
    """
    fields: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for name, text in form.items():
        if text in ("", "null") and name not in FREE_TEXT:
            continue
        inner = re.fullmatch(rf"{OPTIONS}(?:_(\w+)|\[(\w+)\])", name)
        if inner is not None:
            options[inner[1] or inner[2]] = _literal(text)
        else:
            fields[name] = _literal(text) if name in LITERAL else text
    if options:
        fields.setdefault(OPTIONS, options)
    return fields


def parse_image_options(body: dict[str, Any], hosted: HostedImages) -> ImageOptions:
    """`body` is without nulls. Raises InvalidRequest naming the first field that is wrong."""
    refuse(body, REFUSED)
    if "prompt" not in body:
        raise wrong("prompt", '"prompt" must be provided')
    options = present(checks.mapping(OPTIONS, body.get(OPTIONS, {})))
    stream = checks.flag(body, "stream", False)
    n_partial = checks.whole(body, "partial_images", 0, 3, 0)
    preview = _parse_preview(options)
    if n_partial and preview == "none":
        preview = "fast"
    else:
        n_partial = 0
    info = hosted.info
    if preview != "none" and not info.can_preview:
        raise wrong("partial_images" if n_partial else "stream_options.preview", "this server cannot make previews")
    chunked = checks.boolean("stream_options.chunk_result", options.get("chunk_result", False))
    chunk_size = checks.integer(
        "stream_options.chunk_size", options.get("chunk_size", USUAL_CHUNK), SMALLEST_CHUNK, checks.INT32_MAX
    )
    interval = parse_ping(body, hosted.config)
    return ImageOptions(
        job=_parse_job(body, hosted, info, preview if stream else "none"),
        model=parse_model(body, hosted.config, info),
        stream=stream,
        include_usage=checks.boolean("stream_options.include_usage", options.get("include_usage", True)),
        for_openai=OPTIONS not in body,
        chunk_size=chunk_size if chunked else 0,
        n_previews=n_partial or None,
        ping_interval=interval if "sse_ping_interval" in body else min(interval, PING_SECONDS),
    )


def _parse_job(body: dict[str, Any], hosted: HostedImages, info: ImageModelInfo, preview: str) -> ImageJob:
    width, height = _parse_size(body, hosted, info)
    n = checks.whole(body, "n", 1, hosted.images.max_batch, 1)
    sampler = _name_of(body, SAMPLER, info.samplers)
    # Beside a sampler quality and style have no effect, as in llama-box.
    quality = _choice(body, "quality", QUALITIES) if "quality" in body else ""
    style = _choice(body, "style", STYLES) if "style" in body else ""
    extra = [] if sampler else [words for words in (quality, style) if words]
    negative = _text(body, first_present(body, NEGATIVE) or NEGATIVE[0])
    return ImageJob(
        request_id=hosted.next_request_id(),
        prompt=_text(body, "prompt"),
        negative_prompt=" and ".join(words for words in (negative, *extra) if words),
        n=n,
        width=width,
        height=height,
        seed=_parse_seed(body, hosted),
        sampler=sampler,
        schedule=_name_of(body, SCHEDULE, list(dict.fromkeys(["default", *info.schedules]))),
        steps=_first_whole(body, STEPS, 1, MAX_STEPS),
        extra_steps=HD_STEPS if quality and not sampler else 0,
        cfg_scale=checks.real(body, "cfg_scale", 1.0, MAX_SCALE, None),
        guidance=checks.real(body, "guidance", 0.0, MAX_SCALE, None),
        strength=checks.real(body, "strength", 0.0, 1.0, None),
        eta=checks.real(body, "eta", 0.0, 1.0, None),
        clip_skip=_first_whole(body, ("clip_skip",), 1, 12),
        slg_scale=checks.real(body, "slg_scale", 0.0, MAX_SCALE, None),
        slg_start=checks.real(body, "slg_start", 0.0, 1.0, None),
        slg_end=checks.real(body, "slg_end", 0.0, 1.0, None),
        slg_layers=_parse_layers(body),
        control_strength=checks.real(body, "control_strength", 0.0, 1.0, None),
        control_canny=checks.flag(body, "control_canny", None),
        lora=parse_lora("lora", body["lora"], len(info.lora)) if "lora" in body else hosted.defaults.lora,
        preview=preview,
    )


def _parse_size(body: dict[str, Any], hosted: HostedImages, info: ImageModelInfo) -> tuple[int, int]:
    """Width and height in pixels; the model's own where the request does not say."""
    largest = (hosted.images.max_width, hosted.images.max_height)
    usual = (info.width, info.height)
    text = checks.string("size", body.get("size", "auto"))
    if text == "auto":
        width, height = map(min, usual, largest)
        return width, height
    found = re.fullmatch(r"([0-9]{1,6})[xX]([0-9]{1,6})", text)
    if found is None:
        raise wrong("size", f"must be a width and a height in pixels, as 512x512, not {describe(text)}")
    sides = int(found[1]), int(found[2])
    for what, side, most in zip(("width", "height"), sides, largest, strict=True):
        if not SMALLEST <= side <= most:
            raise wrong("size", f"the {what} must be between {SMALLEST} and {most}, not {side}")
    return sides


def _parse_seed(body: dict[str, Any], hosted: HostedImages) -> int:
    """The seed of the first image; drawn here where neither request nor command line have one."""
    default = hosted.defaults.sampling.seed
    seed = parse_seed("seed", body["seed"]) if "seed" in body else default
    return secrets.randbelow(2**31) if seed == RANDOM_SEED else seed


def _parse_preview(options: dict[str, Any]) -> str:
    value = options.get("preview", False)
    if not isinstance(value, bool) and value != "faster":
        raise wrong("stream_options.preview", f'must be true, false or "faster", not {describe(value)}')
    return PREVIEWS[value]


def _parse_layers(body: dict[str, Any]) -> tuple[int, ...]:
    name = first_present(body, SLG_LAYERS)
    if name is None:
        return ()
    value = body[name]
    if not isinstance(value, list) or len(value) > MAX_LAYERS:
        raise wrong(name, f"must be an array of at most {MAX_LAYERS} numbers of layers")
    return tuple(checks.integer(f"{name}[{i}]", layer, 0, 1000) for i, layer in enumerate(value))


def _name_of(body: dict[str, Any], names: tuple[str, ...], known: list[str]) -> str | None:
    """A sampler or schedule by the first of its field's names; None where the body names none."""
    name = next((name for name in names if body.get(name)), None)
    if name is None:
        return None
    value = checks.string(name, body[name]).lower()
    if value not in known:
        raise wrong(name, f"must be one of {', '.join(known)}, not {describe(body[name])}")
    return value


def _choice(body: dict[str, Any], field: str, known: dict[str, str]) -> str:
    value = checks.string(field, body[field])
    if value not in known:
        raise wrong(field, f"must be {' or '.join(known)}, not {describe(value)}")
    return known[value]


def _text(body: dict[str, Any], field: str) -> str:
    text = checks.string(field, body.get(field, ""))
    if len(text) > MAX_PROMPT:
        raise wrong(field, f"must have at most {MAX_PROMPT} characters, not {len(text)}")
    if "\0" in text:
        raise wrong(field, "must not contain the character U+0000")
    return text


def _first_whole(body: dict[str, Any], names: tuple[str, ...], low: int, high: int) -> int | None:
    name = first_present(body, names)
    return None if name is None else checks.integer(name, body[name], low, high)


def _literal(text: str) -> Any:
    """The value of a form's text. A text that is no JSON stays one, for the checker of its field to refuse."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
