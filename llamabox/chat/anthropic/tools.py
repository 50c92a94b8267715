"""`tools` and `tool_choice` of Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from llamabox.checks import describe, mapping, one_of, present, string, wrong

CHOICES = ("auto", "any", "tool", "none")


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of a request: `fields` are where each stands. `left_out` names those that Anthropic's servers run."""

    tools: tuple[dict[str, Any], ...]
    fields: tuple[str, ...]
    left_out: tuple[str, ...]


def read_tools(body: Mapping[str, Any]) -> Tools:
    """The tools in the form of chat/messages.py."""
    given = body.get("tools", [])
    if not isinstance(given, list):
        raise wrong("tools", f"must be an array of tools, not {describe(given)}")
    tools, fields, left_out = [], [], []
    for i, value in enumerate(given):
        where = f"tools[{i}]"
        tool = present(mapping(where, value))
        name = string(f"{where}.name", tool.get("name"))
        kind = string(f"{where}.type", tool.get("type", "custom"))
        if kind != "custom" and "input_schema" not in tool:
            left_out.append(f"{name} ({kind})")
            continue
        tools.append({"type": "function", "function": _function(tool, name, where)})
        fields.append(where)
    return Tools(tuple(tools), tuple(fields), tuple(left_out))


def _function(tool: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    description = string(f"{where}.description", tool.get("description", ""))
    examples = tool.get("input_examples", [])
    if not isinstance(examples, list):
        raise wrong(f"{where}.input_examples", f"must be an array, not {describe(examples)}")
    if examples:
        told = "\n".join(orjson.dumps(one).decode() for one in examples)
        description += ("\n\n" if description else "") + f"Examples of its input:\n{told}"
    if "input_schema" not in tool:
        raise wrong(f"{where}.input_schema", "is required: the JSON schema of an object")
    function: dict[str, Any] = {"name": name}
    if description:
        function["description"] = description
    function["parameters"] = mapping(f"{where}.input_schema", tool["input_schema"])
    if "strict" in tool:
        function["strict"] = tool["strict"]
    return function


def read_choice(body: Mapping[str, Any], names: list[str]) -> str | dict[str, Any]:
    """`tool_choice` in the form of chat/messages.py. `names` are those of the tools."""
    choice = _choice(body)
    match one_of("tool_choice.type", choice.get("type"), CHOICES):
        case "any":
            if not names:
                raise wrong("tool_choice", "type any needs tools to choose from")
            return "required"
        case "tool":
            name = string("tool_choice.name", choice.get("name"))
            if name not in names:
                raise wrong("tool_choice.name", f"{name!r} is none of the tools: {', '.join(names)[:500]}")
            return {"type": "function", "function": {"name": name}}
        case kind:
            return kind


def in_parallel(body: Mapping[str, Any]) -> bool:
    """Whether an answer may call several tools."""
    field = "disable_parallel_tool_use"
    disabled = _choice(body).get(field, False)
    if not isinstance(disabled, bool):
        raise wrong(f"tool_choice.{field}", f"must be true or false, not {describe(disabled)}")
    return not disabled


def _choice(body: Mapping[str, Any]) -> dict[str, Any]:
    return present(mapping("tool_choice", body.get("tool_choice", {"type": "auto"})))
