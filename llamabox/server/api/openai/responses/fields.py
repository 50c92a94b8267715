"""Fields of POST /v1/responses beside input and tools (docs/api.md, Responses)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llamabox import checks
from llamabox.chat.config import EFFORTS
from llamabox.checks import INT32_MAX, describe, first_present, mapping, one_of, present, string, wrong
from llamabox.engine.request import GenerationParams
from llamabox.server.conversation.template_wishes import EFFORT, VERBOSITIES, VERBOSITY
from llamabox.server.fields.grammar import AnswerForm, schema_form
from llamabox.server.fields.logprobs import n_probs
from llamabox.server.fields.request import Options, openai_defaults, parse_options
from llamabox.server.fields.unsupported import Neutral, is_empty, never, only, refuse
from llamabox.server.hosted.config import ModelConfig
from llamabox.wire.text_config import ModelInfo

MAX_TOP = 20
"""OpenAI's own bound of `top_logprobs`."""

MAX_METADATA = 16
MAX_KEY = 64
MAX_VALUE = 512
"""OpenAI's own bounds of `metadata`: pairs, and characters."""

LOGPROBS = "message.output_text.logprobs"
SEALED = "reasoning.encrypted_content"
TRUNCATIONS = ("auto", "disabled")
SUMMARIES = ("auto", "concise", "detailed")

REFUSED: dict[str, Neutral] = {
    "conversation": never,
    "prompt": never,
    "moderation": never,
    "context_management": is_empty,
    "service_tier": only("auto", "default", "flex"),  # the others buy speed
    "n": only(1),
    "post_sampling_probs": only(False),  # logprobs are true log-probabilities
    "response_fields": is_empty,
    "response_format": never,  # text.format says it here
}
"""Fields that this API cannot honour, and the values with which they ask for nothing."""


INSTEAD = {
    "conversation": "go on from a stored response by previous_response_id, or send the whole input",
    "context_management": "ask for a compaction at /v1/responses/compact, or for truncation of auto",
    "prompt": "send instructions and input",
    "response_format": "say it in text.format",
}
"""What does the same here, by the field that cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a request wants beside its answer's text."""

    options: Options
    with_logprobs: bool
    with_sealed: bool  # thoughts come with `encrypted_content`
    summary: str | None  # of thoughts, whose texts are then their own summaries
    wishes: dict[str, Any]  # for the template, by chat's names: reasoning_effort, verbosity
    text: dict[str, Any]  # as the reply repeats it
    may_truncate: bool  # the oldest turns of a conversation that does not fit
    n_dropped: int = 0  # of them, once that is known
    repeated: dict[str, Any]  # fields without effect, which the reply repeats


def parse_fields(body: dict[str, Any], config: ModelConfig, defaults: GenerationParams, info: ModelInfo) -> Wanted:
    """`body` is without nulls. Raises InvalidRequest naming the first field that is wrong."""
    refuse(body, REFUSED, instead=INSTEAD)
    include = checks.strings("include", body.get("include", []), max_count=64, max_length=128)
    with_logprobs = LOGPROBS in include
    top = checks.whole(body, "top_logprobs", 0, MAX_TOP, None)
    n_top = min(top or 0, info.n_vocab) if with_logprobs or top else n_probs(body, info.n_vocab)
    text = present(mapping("text", body.get("text", {})))
    reasoning = present(mapping("reasoning", body.get("reasoning", {})))
    given = dict(body)
    if "max_output_tokens" in body:
        given["n_predict"] = checks.integer("max_output_tokens", body["max_output_tokens"], -1, INT32_MAX)
    form = _form(text["format"]) if "format" in text else None
    if (other := first_present(body, ("grammar", "json_schema"))) and form is not None:
        if form.json_schema:
            raise wrong(other, "cannot stand beside a text.format that asks for a form; leave out one")
        form = None
    options = parse_options(given, config, openai_defaults(defaults, config), info, n_top=n_top, form=form)
    return Wanted(
        options=options,
        with_logprobs=n_top is not None,
        with_sealed=SEALED in include,
        summary=_summary(reasoning),
        wishes=_wishes(reasoning, text),
        text={"format": {"type": "text"}, **text},
        may_truncate=one_of("truncation", body.get("truncation", "disabled"), TRUNCATIONS) == "auto",
        repeated=_repeated(body),
    )


def _form(value: Any) -> AnswerForm | None:
    """The form that `text.format` asks for; None: it is left to the other fields."""
    told = present(mapping("text.format", value))
    match told.get("type"):
        case "text":
            return AnswerForm()
        case "json_object":
            return schema_form("text.format", {"type": "object"})
        case "json_schema":
            strict = told.get("strict", False)
            if told.get("schema") is None:
                raise wrong("text.format.schema", "is required: an object with the JSON schema")
            return schema_form(
                "text.format.schema", told["schema"], strict=checks.boolean("text.format.strict", strict)
            )
    raise wrong("text.format.type", f"must be text, json_object or json_schema, not {describe(told.get('type'))}")


def _wishes(reasoning: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    wishes = {}
    if "effort" in reasoning:
        wishes[EFFORT] = one_of("reasoning.effort", reasoning["effort"], EFFORTS)
    if VERBOSITY in text:
        wishes[VERBOSITY] = one_of("text.verbosity", text[VERBOSITY], VERBOSITIES)
    return wishes


def _summary(reasoning: Mapping[str, Any]) -> str | None:
    """`summary`, or its older name."""
    for name in ("summary", "generate_summary"):
        if name in reasoning:
            return one_of(f"reasoning.{name}", reasoning[name], SUMMARIES)
    return None


def _repeated(body: Mapping[str, Any]) -> dict[str, Any]:
    names = ("prompt_cache_key", "safety_identifier", "user")
    return {
        "metadata": _metadata(body),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": checks.whole(body, "max_tool_calls", 1, INT32_MAX, None),
        **{name: string(name, body[name]) if name in body else None for name in names},
    }


def _metadata(body: Mapping[str, Any]) -> dict[str, str]:
    metadata = mapping("metadata", body.get("metadata", {}))
    if len(metadata) > MAX_METADATA:
        raise wrong("metadata", f"must have at most {MAX_METADATA} pairs, not {len(metadata)}")
    for key, value in metadata.items():
        if len(key) > MAX_KEY or not isinstance(value, str) or len(value) > MAX_VALUE:
            raise wrong(
                f"metadata.{key[:MAX_KEY]}",
                f"must be a string of up to {MAX_VALUE} characters, under a name of up to {MAX_KEY}",
            )
    return metadata
