"""Fields that clients know and this build cannot honour (docs/api.md, Refused features)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llamabox.checks import describe, wrong

Neutral = Callable[[Any], bool]

NO_TOOLS = 'tools are not supported by this server; leave them out or say "tool_choice": "none"'


def _is(*values: Any) -> Neutral:
    """One of the values, of the same type: true is not 1."""
    return lambda value: any(type(value) is type(known) and value == known for known in values)


def _empty(value: Any) -> bool:
    return value in ("", [], {}) or value is False


def _never(value: Any) -> bool:
    return False


GENERATION: dict[str, Neutral] = {
    "grammar_lazy": _is(False),
    "grammar_triggers": _empty,
    "preserved_tokens": _empty,
    "backend_sampling": _is(False),
}
"""Refused on every route that generates."""

COMPLETION: dict[str, Neutral] = {
    "post_sampling_probs": _is(False),  # its arrays are true log-probabilities
    "echo": _is(False),
    "best_of": _is(1),
    "suffix": _is(""),
    "tool_choice": _is("none", "auto"),
    "response_fields": _empty,
}
"""Refused on /v1/completions as well; so are `tools`, see `refuse_tools`."""

CHAT: dict[str, Neutral] = {
    "tool_choice": _is("none", "auto"),
    "functions": _empty,
    "function_call": _is("none", "auto"),
    "modalities": _is(["text"]),
    "audio": _never,
    "web_search_options": _never,
    "moderation": _never,
    "service_tier": _is("auto", "default", "flex"),  # the others buy speed
    "response_fields": _empty,
}
"""Refused on chat as well; so are `tools`, once the messages are parsed."""

RERANK: dict[str, Neutral] = {
    "rank_fields": _is(["text"]),
    "max_chunks_per_doc": _is(1),
    "truncation_direction": _is("Right", "right"),
    "return_embeddings": _is(False),
}
"""Refused on /v1/rerank."""

IMAGES: dict[str, Neutral] = {
    "response_format": _is("b64_json"),
    "output_format": _is("png"),
    "background": _is("auto", "opaque"),
    "input_fidelity": _is("low"),
    "output_compression": _is(100),
    "frame_count": _is(1),
    "frame_duration_ms": _never,
    "complexity": _never,
    "markup": _empty,
    "svg": _empty,
}
"""Refused on /v1/images/*."""


def refuse(body: dict[str, Any], *tables: dict[str, Neutral]) -> None:
    """Raises InvalidRequest for the first field of the tables that asks for something."""
    for table in tables:
        for field, is_neutral in table.items():
            if field in body and not is_neutral(body[field]):
                raise wrong(field, f"{describe(body[field])} is not supported by this server; leave it out")


def refuse_tools(body: dict[str, Any]) -> None:
    """Raises InvalidRequest for tools, unless `tool_choice` says that none is to be called."""
    if not _empty(body.get("tools", [])) and body.get("tool_choice") != "none":
        raise wrong("tools", NO_TOOLS)
