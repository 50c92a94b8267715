"""Fields of POST /v1/chat/completions beside the messages (docs/api.md, Chat completions)."""

from __future__ import annotations

from typing import Any

from llamabox import checks
from llamabox.checks import wrong
from llamabox.engine.request import GenerationParams
from llamabox.server.fields.logprobs import n_probs
from llamabox.server.fields.request import Options, openai_defaults, parse_options
from llamabox.server.fields.unsupported import Neutral, is_empty, never, only, refuse
from llamabox.server.hosted.config import ModelConfig
from llamabox.wire.text_config import ModelInfo

MAX_TOP = 20
"""OpenAI's own bound of `top_logprobs`."""

REFUSED: dict[str, Neutral] = {
    "modalities": only(["text"]),
    "audio": never,
    "web_search_options": never,
    "moderation": never,
    "service_tier": only("auto", "default", "flex"),  # the others buy speed
    "response_fields": is_empty,
}
"""Fields that this API cannot honour, and the values with which they ask for nothing."""


def chat_options(body: dict[str, Any], config: ModelConfig, defaults: GenerationParams, info: ModelInfo) -> Options:
    """`body` is without nulls. Raises InvalidRequest naming the first field that is wrong."""
    refuse(body, REFUSED)
    n_top = _n_top(body, info.n_vocab)
    return parse_options(body, config, openai_defaults(defaults, config), info, n_top=n_top)


def _n_top(body: dict[str, Any], n_vocab: int) -> int | None:
    """`logprobs: true`, with as many as `top_logprobs` says; or `n_probs`."""
    if checks.flag(body, "logprobs", False):
        return min(checks.whole(body, "top_logprobs", 0, MAX_TOP, 1), n_vocab)
    if checks.whole(body, "top_logprobs", 0, MAX_TOP, 0):
        raise wrong("top_logprobs", 'needs "logprobs": true beside it')
    return n_probs(body, n_vocab)
