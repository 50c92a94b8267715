"""Custom tools: those that take a text of their own, free or of a grammar, instead of arguments.

Templates and models know only functions, so a custom tool is shown as one whose only parameter is that text. The
conversation keeps the format of each input beside the tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamabox.chat.formats.values.input_text import INPUT
from llamabox.checks import describe, mapping, one_of, present, string, wrong

InputFormat = dict[str, str]
"""{"syntax": "lark" or "regex", "definition", "field": where the request has that}, or empty for any text."""

SYNTAXES = ("lark", "regex")
MAX_DEFINITION = 64 << 10
"""Characters of a grammar: some tenfold of the largest ones that people write."""

DESCRIPTIONS = {
    "": "The input of the tool: any text.",
    "lark": "The input of the tool: a text of this Lark grammar:\n",
    "regex": "The input of the tool: a text that this regular expression matches:\n",
}


def parse_custom(custom: Mapping[str, Any], where: str) -> tuple[dict[str, Any], InputFormat]:
    """The function as which a tool with `name`, `description` and `format` is shown, and the format of its input.

    Raises InvalidRequest naming the field, which stands behind `where`.
    """
    custom = present(custom)
    name = string(f"{where}.name", custom.get("name"))
    told = parse_format(custom.get("format", {"type": "text"}), f"{where}.format")
    function = {"name": name}
    if "description" in custom:
        function["description"] = string(f"{where}.description", custom["description"])
    about = DESCRIPTIONS[told.get("syntax", "")] + told.get("definition", "")
    return {"type": "function", "function": {**function, "parameters": input_schema(about)}}, told


def parse_format(value: Any, where: str) -> InputFormat:
    """The format of an input: {"type": "text"}, or {"type": "grammar"} with `syntax` and `definition`, within `grammar`
    or beside the type. Raises InvalidRequest."""
    value = mapping(where, value)
    if one_of(f"{where}.type", value.get("type"), ("text", "grammar")) == "text":
        return {}
    if "grammar" in value:
        where = f"{where}.grammar"
        value = mapping(where, value["grammar"])
    syntax = one_of(f"{where}.syntax", value.get("syntax"), SYNTAXES)
    definition = string(f"{where}.definition", value.get("definition"))
    if not definition.strip():
        raise wrong(f"{where}.definition", f"must not be empty: a grammar in {syntax}")
    if len(definition) > MAX_DEFINITION:
        raise wrong(f"{where}.definition", f"must have at most {MAX_DEFINITION} characters, not {len(definition)}")
    return {"syntax": syntax, "definition": definition, "field": f"{where}.definition"}


def input_schema(description: str = "") -> dict[str, Any]:
    """The parameters of the function as which a custom tool is shown."""
    described = {"type": "string", "description": description} if description else {"type": "string"}
    return {
        "type": "object",
        "properties": {INPUT: described},
        "required": [INPUT],
        "additionalProperties": False,
    }


def as_function_call(custom: object, where: str) -> dict[str, Any]:
    """The `function` of a custom call of the history: `name` and `input`. Raises InvalidRequest."""
    if not isinstance(custom, dict):
        raise wrong(where, f"must be an object with name and input, not {describe(custom)}")
    given = custom.get(INPUT)
    text = "" if given is None else string(f"{where}.{INPUT}", given)
    return {"name": string(f"{where}.name", custom.get("name")), "arguments": {INPUT: text}}
