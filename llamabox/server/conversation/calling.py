"""Which tools a chat may call, and whether it must: `tools`, `tool_choice`, `parallel_tool_calls`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from llamabox import checks
from llamabox.chat.custom import InputFormat, input_schema
from llamabox.chat.formats.grammar.tool import Tool
from llamabox.chat.messages import Conversation
from llamabox.checks import describe, mapping, wrong
from llamabox.errors import InvalidRequest
from llamabox.schemas.plain import n_parts
from llamabox.schemas.relax import relax
from llamabox.schemas.shape import check_shape

MAX_TOOLS = 512
N_KNOWN = 16
"""Lists of tools that are kept, each with its objects: some MB for a hundred tools."""

NAME = re.compile(r"[\w.:/\-]{1,256}")
"""Names that every form can hold. OpenAI's own are of letters, digits, _ and -, up to 64."""


ELSEWHERE = frozenset({"$ref", "allOf", "anyOf", "oneOf", "patternProperties"})
"""Keys of a schema that allow properties beside those of `properties`."""


@dataclass(frozen=True, slots=True)
class Calling:
    """The tools that an answer may call. `notes` say what was left out of their schemas."""

    tools: tuple[Tool, ...]
    must_call: bool
    parallel: bool
    notes: tuple[str, ...] = ()


def parse_calling(body: dict[str, Any], conversation: Conversation) -> Calling | None:
    """None where there are no tools. Raises InvalidRequest naming the field."""
    given = conversation.tools or ()
    parallel = checks.flag(body, "parallel_tool_calls", True) and not conversation.has_functions
    if not given:
        if conversation.tool_choice == "required" or isinstance(conversation.tool_choice, dict):
            field = "function_call" if conversation.has_functions else "tool_choice"
            raise wrong(field, "needs tools to choose from")
        return None
    inputs = conversation.inputs
    named = []
    for i, tool in enumerate(given):
        function = tool["function"]
        named.append((f"tools[{i}].{'custom' if function['name'] in inputs else 'function'}", function))
    tools, notes = make_tools(named, inputs=inputs)
    names, must_call = chosen(conversation.tool_choice, list(tools))
    return Calling(tuple(tools[name] for name in names), must_call, parallel, notes)


def make_tools(
    given: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    schema: str = "parameters",
    inputs: Mapping[str, InputFormat] | None = None,
) -> tuple[dict[str, Tool], tuple[str, ...]]:
    """The tools by their names, and what was left out of their schemas.

    `given` has the field of each, and its object with `name`, `parameters` and `strict`. `schema` is what the request
    calls the parameters. `inputs` are the formats of those that are custom, by name. Raises InvalidRequest.
    """
    if len(given) > MAX_TOOLS:
        raise wrong("tools", f"must be at most {MAX_TOOLS}, not {len(given)}")
    try:
        told = orjson.dumps((given, schema, inputs))
    except TypeError:  # its own limit of depth
        return _made_tools(given, schema, inputs)
    return _known_tools(told)


@lru_cache(N_KNOWN)
def _known_tools(told: bytes) -> tuple[dict[str, Tool], tuple[str, ...]]:
    """Clients send the same tools with each turn. The tools are the very same objects then."""
    return _made_tools(*orjson.loads(told))


def _made_tools(
    given: Sequence[Sequence[Any]], schema: str, inputs: Mapping[str, InputFormat] | None
) -> tuple[dict[str, Tool], tuple[str, ...]]:
    notes: list[str] = []
    tools: dict[str, Tool] = {}
    for where, function in given:
        made = _tool(function, where, notes, schema)
        if (told := (inputs or {}).get(made.name)) is not None:
            made = Tool(made.name, input_schema(), has_grammar=bool(told))
        if made.name in tools:
            raise wrong(f"{where}.name", f"{made.name!r} is the name of another tool, too")
        tools[made.name] = made
    return tools, tuple(notes)


def _tool(function: Mapping[str, Any], where: str, notes: list[str], schema_name: str) -> Tool:
    name = function["name"]
    if NAME.fullmatch(name) is None:
        raise wrong(f"{where}.name", "must have 1 to 256 letters, digits, or any of _ - . : /")
    strict = function.get("strict")
    if not isinstance(strict, bool | None):
        raise wrong(f"{where}.strict", f"must be true or false, not {describe(strict)}")
    parameters, field = function.get("parameters"), f"{where}.{schema_name}"
    schema = {} if parameters is None else mapping(field, parameters)
    check_shape(field, schema)
    if schema.get("type") not in (None, "object"):
        raise wrong(f"{field}.type", f'must be "object", not {describe(schema["type"])}')
    if function.get("description") is not None:
        checks.string(f"{where}.description", function["description"])
    try:
        relaxed = relax(schema, strict=strict is True)
    except InvalidRequest as error:
        raise wrong(field, error.message) from error
    if strict and relaxed.notes:
        raise wrong(field, f"cannot be kept to the letter, as `strict` asks: {relaxed.notes[0]}")
    notes += [f"tool {name}: {note}" for note in relaxed.notes]
    closed = _closed(relaxed.schema)
    return Tool(name, closed, field=field, n_plain_parts=n_parts(closed))


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object: other arguments than those that it names are taken only where it says so.

    One that names them elsewhere, by a reference or in alternatives, stays as it is. A required argument without a
    schema may be anything.
    """
    if not ELSEWHERE.isdisjoint(schema):
        return {"type": "object", **schema}
    closed = {"type": "object", "properties": {}, "additionalProperties": False, **schema}
    if closed["additionalProperties"] is False:
        missing = [name for name in schema.get("required", ()) if name not in closed["properties"]]
        closed["properties"] = {**closed["properties"], **{name: {} for name in missing}}
    return closed


def chosen(choice: str | dict[str, Any], names: list[str]) -> tuple[list[str], bool]:
    """The names of the tools that may be called, and whether one must be."""
    if isinstance(choice, str):
        return names, choice == "required"
    match choice.get("type", "function"):
        case "function" | "custom" as kind:
            named = mapping(f"tool_choice.{kind}", choice.get(kind))
            return [_known(f"tool_choice.{kind}.name", named, names)], True
        case "allowed_tools":
            allowed = mapping("tool_choice.allowed_tools", choice.get("allowed_tools", choice))
            mode = checks.one_of("tool_choice.allowed_tools.mode", allowed.get("mode", "auto"), ("auto", "required"))
            listed = allowed.get("tools")
            if not isinstance(listed, list) or not listed:
                raise wrong("tool_choice.allowed_tools.tools", "must be an array of tools")
            return _allowed(listed, names), mode == "required"
    raise wrong("tool_choice.type", f"must be function, custom or allowed_tools, not {describe(choice.get('type'))}")


def _allowed(listed: Sequence[Any], names: list[str]) -> list[str]:
    found = []
    for i, tool in enumerate(listed):
        where = f"tool_choice.allowed_tools.tools[{i}]"
        one = mapping(where, tool)
        found.append(_known(f"{where}.name", mapping(where, one.get("function", one.get("custom", one))), names))
    return list(dict.fromkeys(found))


def _known(field: str, value: Mapping[str, Any], names: list[str]) -> str:
    name = checks.string(field, value.get("name"))
    if name not in names:
        raise wrong(field, f"{name!r} is none of the tools: {', '.join(names)[:500]}")
    return name
