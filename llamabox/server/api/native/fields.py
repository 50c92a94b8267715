"""Fields of llama.cpp's own completion routes beside the prompt (docs/api.md, Native completion)."""

from __future__ import annotations

from typing import Any

from llamabox import checks
from llamabox.engine.request import GenerationParams
from llamabox.server.fields.logprobs import MAX_PROBS, refuse_top_logprobs
from llamabox.server.fields.request import Options, parse_options
from llamabox.server.hosted.config import ModelConfig
from llamabox.wire.text_config import ModelInfo

MAX_RESPONSE_FIELDS = 256

ResponseField = tuple[str, tuple[str, ...]]
"""A key of the reply, and the path to its value in the whole one."""


def native_options(body: dict[str, Any], config: ModelConfig, defaults: GenerationParams, info: ModelInfo) -> Options:
    """All fields but `response_fields`. `body` is without nulls. InvalidRequest names the first one that is wrong."""
    n_top = _n_top(body, info.n_vocab)
    return parse_options(body, config, defaults, info, n_top=n_top, shows_prompt=True)


def _n_top(body: dict[str, Any], n_vocab: int) -> int | None:
    """`n_probs`, else `logprobs` as another name of it; 0 asks for nothing. None: no log-probabilities at all."""
    refuse_top_logprobs(body)
    field = "n_probs" if "n_probs" in body else "logprobs"
    if body.get(field, False) is False:
        return None
    return min(checks.integer(field, body[field], 0, MAX_PROBS), n_vocab) or None


def parse_response_fields(body: dict[str, Any]) -> list[ResponseField]:
    """The keys that are wanted of the reply; empty: all."""
    fields = body.get("response_fields", [])
    fields = checks.strings("response_fields", fields, max_count=MAX_RESPONSE_FIELDS, max_length=256)
    return [(field, tuple(field.split("/"))) for field in fields]
