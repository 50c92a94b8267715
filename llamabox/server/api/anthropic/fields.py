"""Fields of POST /v1/messages beside the messages and tools (docs/api.md, Messages)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from llamabox import checks
from llamabox.checks import INT32_MAX, mapping, present, wrong
from llamabox.engine.request import GenerationParams
from llamabox.server.conversation.template_wishes import effort_wishes, thinking_wishes
from llamabox.server.fields.generation import check_stops
from llamabox.server.fields.grammar import AnswerForm, schema_form
from llamabox.server.fields.request import Options, openai_defaults, parse_options
from llamabox.server.fields.unsupported import Neutral, is_empty, never, only, refuse
from llamabox.server.generation.thinking import BUDGET_NAMES
from llamabox.server.hosted.config import ModelConfig
from llamabox.wire.text_config import ModelInfo

EFFORTS = ("low", "medium", "high", "xhigh", "max")
THINKING = ("enabled", "adaptive", "disabled", "between_tools")
DISPLAYS = ("summarized", "omitted")
SERVICE_TIERS = ("auto", "standard_only")
SPEEDS = ("standard", "fast")

OWN = frozenset(
    {"max_tokens", "stop_sequences", "stop", "output_config", "output_format", "thinking", "tool_choice", "metadata"}
    | {"stream_options"}
)
"""Fields that mean something else, or nothing, to what all APIs have in common."""

CHATS_OWN = ("grammar", "reasoning_format", "reasoning_budget_message", *BUDGET_NAMES)
"""Fields of chat that may stand beside Anthropic's, and count more."""

REFUSED: dict[str, Neutral] = {
    "mcp_servers": is_empty,
    "container": never,
    "n": only(1),
    "n_cmpl": only(1),
    "n_probs": only(0),
    "return_tokens": only(False),
    "timings_per_token": only(False),
    "verbose": only(False),
}
"""Fields that this API cannot honour, and the values with which they ask for nothing."""


@dataclass(frozen=True, slots=True)
class Thinking:
    """What a request says of thoughts; None where it says nothing."""

    enabled: bool | None = None
    budget: int | None = None  # tokens
    is_shown: bool = True


def parse_thinking(body: dict[str, Any]) -> Thinking:
    """`thinking`. Raises InvalidRequest."""
    if "thinking" not in body:
        return Thinking()
    given = present(mapping("thinking", body["thinking"]))
    kind = checks.one_of("thinking.type", given.get("type"), THINKING)
    display = checks.one_of("thinking.display", given.get("display", "summarized"), DISPLAYS)
    budget = None
    if kind == "enabled":
        if "budget_tokens" not in given:
            raise wrong("thinking.budget_tokens", "is required where thinking is enabled: tokens, at least 1")
        budget = checks.integer("thinking.budget_tokens", given["budget_tokens"], 1, INT32_MAX)
    return Thinking(kind in ("enabled", "adaptive"), budget, display != "omitted")


def neutral_thinking(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of chat for how an answer's thoughts are told, and how many tokens they may have."""
    thinking = parse_thinking(body)
    neutral: dict[str, Any] = {"reasoning_format": "auto"}  # a block of their own, whatever chats are told
    if thinking.enabled is False:
        neutral["reasoning_budget_tokens"] = 0
    elif thinking.budget is not None:
        neutral["reasoning_budget_tokens"] = thinking.budget
    return neutral | {name: body[name] for name in CHATS_OWN if name in body}


def wishes(body: dict[str, Any], source: str) -> dict[str, Any]:
    """The variables of the template, whose text is `source`, that fulfil `thinking` and `output_config.effort`.

    A model that cannot think, or think less, answers as it does: clients ask every model for it.
    """
    found: dict[str, Any] = {}
    config = _output_config(body)
    if "effort" in config:
        found |= effort_wishes(checks.one_of("output_config.effort", config["effort"], EFFORTS), source)
    enabled = parse_thinking(body).enabled
    return found if enabled is None else found | thinking_wishes(enabled, source)


def message_options(body: dict[str, Any], config: ModelConfig, defaults: GenerationParams, info: ModelInfo) -> Options:
    """`body` is without nulls. Raises InvalidRequest naming the first field that is wrong.

    A full context ends the answer: the client knows what to do then, and a shift would lose half of what it said.
    """
    refuse(body, REFUSED)
    check_shared(body)
    if "max_tokens" not in body:
        raise wrong("max_tokens", "is required: the most tokens of the answer")
    neutral = {name: value for name, value in body.items() if name not in OWN}
    neutral["n_predict"] = checks.integer("max_tokens", body["max_tokens"], 0, INT32_MAX)
    if "stop_sequences" in body:
        neutral["stop"] = check_stops("stop_sequences", body["stop_sequences"])
    options = parse_options(neutral, config, openai_defaults(defaults, config), info, form=_form(body))
    return replace(options, params=replace(options.params, may_shift=False))


def check_shared(body: dict[str, Any]) -> None:
    """Raises InvalidRequest for a wrong value of a field that both routes have and that changes no answer here."""
    mapping("metadata", body.get("metadata", {}))
    checks.one_of("service_tier", body.get("service_tier", "auto"), SERVICE_TIERS)
    checks.one_of("speed", body.get("speed", "standard"), SPEEDS)
    parse_thinking(body)


def _form(body: dict[str, Any]) -> AnswerForm | None:
    """The schema of `output_config.format`, or of `output_format` as it was once called; None: there is none."""
    field, value = "output_config.format", _output_config(body).get("format")
    if value is None:
        field, value = "output_format", body.get("output_format")
    if value is None:
        return None
    form = present(mapping(field, value))
    checks.one_of(f"{field}.type", form.get("type"), ("json_schema",))
    return schema_form(f"{field}.schema", form.get("schema"))


def _output_config(body: dict[str, Any]) -> dict[str, Any]:
    return present(mapping("output_config", body.get("output_config", {})))
