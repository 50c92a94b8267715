"""Fields of POST /v1/completions beside the prompt (docs/api.md, Completions)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llamabox import checks
from llamabox.checks import INT32_MAX, wrong
from llamabox.engine.request import GenerationParams
from llamabox.server.fields.logprobs import n_probs, refuse_top_logprobs
from llamabox.server.fields.request import Options, openai_defaults, parse_options
from llamabox.server.fields.unsupported import Neutral, is_empty, only, refuse
from llamabox.server.hosted.config import ModelConfig
from llamabox.wire.text_config import ModelInfo

MAX_TOP = 5
"""OpenAI's own bound of `logprobs`."""

REFUSED: dict[str, Neutral] = {
    "post_sampling_probs": only(False),  # its arrays are true log-probabilities
    "best_of": only(1),
    "suffix": only(""),
    "tool_choice": only("none", "auto"),
    "response_fields": is_empty,
}
"""So are `tools`, unless `tool_choice` says that none is to be called."""


def completion_options(
    body: dict[str, Any], config: ModelConfig, defaults: GenerationParams, info: ModelInfo
) -> Options:
    """`body` is without nulls. Raises InvalidRequest naming the first field that is wrong."""
    refuse(body, REFUSED)
    if not is_empty(body.get("tools", [])) and body.get("tool_choice") != "none":
        raise wrong("tools", "belong to /v1/chat/completions; leave them out here")
    n_top = _n_top(body, info.n_vocab)
    options = parse_options(body, config, openai_defaults(defaults, config), info, n_top=n_top)
    if not wants_echo(body):
        return options
    return replace(options, params=replace(options.params, n_prompt_probs=options.params.n_probs))


def wants_echo(body: dict[str, Any]) -> bool:
    """Whether the text is to begin with the prompt."""
    return checks.flag(body, "echo", False)


def _n_top(body: dict[str, Any], n_vocab: int) -> int | None:
    """OpenAI's legacy `logprobs`: 0 asks for the sampled token alone, more than 5 means 5. Else `n_probs`."""
    refuse_top_logprobs(body)
    if body.get("logprobs", False) is False:
        return n_probs(body, n_vocab)
    return min(checks.integer("logprobs", body["logprobs"], 0, INT32_MAX), MAX_TOP, n_vocab)
