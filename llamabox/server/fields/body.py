"""The fields of many routes: the model's name, and how often a silent stream is pinged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llamabox import checks
from llamabox.checks import INT32_MAX, wrong
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.hosted.seams import LoadedModel

MAX_MODEL_NAME = 1024


def aliases(config: ModelConfig) -> list[str]:
    """The names in `--alias`, sorted; none while it is "unknown"."""
    names = {name.strip() for name in config.alias.split(",")} - {""}
    return [] if names == {"unknown"} else sorted(names)


def model_name(config: ModelConfig, info: LoadedModel) -> str:
    """The first alias, or the name of the model's file: where it lies on this machine is nobody's business."""
    return next(iter(aliases(config)), Path(info.path).name)


def parse_model(body: dict[str, Any], config: ModelConfig, info: LoadedModel) -> str:
    """The name to be shown in the reply: the request's, else the server's own (docs/api.md, Model names)."""
    if not body.get("model"):
        return model_name(config, info)
    name = checks.string("model", body["model"])
    if len(name) > MAX_MODEL_NAME:
        raise wrong("model", f"must have at most {MAX_MODEL_NAME} characters")
    return name


def parse_ping(body: dict[str, Any], config: ModelConfig) -> float:
    """Seconds of silence after which a stream gets a comment; 0: never."""
    if "sse_ping_interval" not in body:
        return config.ping_interval
    return float(max(0, checks.integer("sse_ping_interval", body["sse_ping_interval"], -1, INT32_MAX)))
