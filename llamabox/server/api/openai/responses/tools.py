"""The tools of a request, and which of them may be called: `tools`, `tool_choice`, `parallel_tool_calls`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamabox import checks
from llamabox.chat.custom import InputFormat, parse_custom
from llamabox.checks import describe, mapping, one_of, present, string, wrong
from llamabox.server.api.openai.responses.items import visible_name
from llamabox.server.conversation.calling import Calling, make_tools

TAKEN = ("function", "custom")
OWN = (*TAKEN, "namespace")
"""Types of tools that clients run. The others are OpenAI's own."""

Choice = str | dict[str, Any]


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool as the client knows it, and as the model does."""

    kind: str
    name: str
    namespace: str | None
    shown: dict[str, Any]  # in chat's form, with the name that the model sees
    where: str
    input: InputFormat | None = None  # of a custom tool

    @property
    def visible(self) -> str:
        """The name that the model sees."""
        return visible_name(self.name, self.namespace)


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What a request offers to be called. `echo` is its `tools` without those that this server does not have."""

    tools: tuple[OfferedTool, ...] = ()
    choice: Choice = "auto"
    parallel: bool = True
    echo: list[dict[str, Any]] = field(default_factory=list)
    dropped: tuple[str, ...] = ()  # types of OpenAI's own tools that were left out

    @property
    def shown(self) -> tuple[dict[str, Any], ...] | None:
        """The tools in chat's form; None where none is to be called."""
        return None if self.choice == "none" else tuple(tool.shown for tool in self.tools) or None

    @property
    def inputs(self) -> dict[str, InputFormat]:
        """The formats of the custom tools' inputs, by the names that the model sees."""
        return {tool.visible: tool.input for tool in self.tools if tool.input is not None}

    def named(self, visible: str) -> OfferedTool:
        """The tool that the model knows by a name. One that nobody offered is a function of that name."""
        found = (tool for tool in self.tools if tool.visible == visible)
        return next(found, None) or OfferedTool("function", visible, None, {}, "")

    def calling(self) -> Calling | None:
        """Which tools may be called; None: none. Raises InvalidRequest naming the field."""
        if self.choice == "none":
            return None
        if not self.tools:
            if self.choice != "auto":
                raise wrong("tool_choice", "needs tools to choose from")
            return None
        given = [(tool.where, tool.shown["function"]) for tool in self.tools]
        tools, notes = make_tools(given, inputs=self.inputs)
        chosen, must_call = self._chosen()
        return Calling(tuple(tools[tool.visible] for tool in chosen), must_call, self.parallel, notes)

    def _chosen(self) -> tuple[Sequence[OfferedTool], bool]:
        """The tools that may be called, and whether one must be."""
        if isinstance(self.choice, str):
            return self.tools, self.choice == "required"
        if self.choice["type"] != "allowed_tools":
            return self._matching(self.choice, "tool_choice"), True
        mode = one_of("tool_choice.mode", self.choice.get("mode", "auto"), ("auto", "required"))
        listed = self.choice.get("tools")
        if not isinstance(listed, list) or not listed:
            raise wrong("tool_choice.tools", "must be an array of tools")
        found: dict[str, OfferedTool] = {}
        for i, one in enumerate(listed):
            where = f"tool_choice.tools[{i}]"
            entry = present(mapping(where, one))
            if entry.get("type", "function") in OWN:
                found |= {tool.visible: tool for tool in self._matching(entry, where)}
        if not found:
            raise wrong("tool_choice.tools", "names no tool that this server can let the model call")
        return list(found.values()), mode == "required"

    def _matching(self, entry: Mapping[str, Any], where: str) -> list[OfferedTool]:
        name, space = string(f"{where}.name", entry.get("name")), entry.get("namespace")
        found = [
            tool
            for tool in self.tools
            if (name == tool.namespace if entry.get("type") == "namespace" else name in (tool.name, tool.visible))
            and space in (None, tool.namespace)
        ]
        if not found:
            names = ", ".join(tool.name for tool in self.tools)[:500]
            raise wrong(f"{where}.name", f"{name!r} is none of the tools: {names}")
        return found


def parse_tools(body: Mapping[str, Any]) -> Toolbox:
    """`body` is without nulls. Raises InvalidRequest naming the field."""
    given = body.get("tools", [])
    if not isinstance(given, list):
        raise wrong("tools", f"must be an array, not {describe(given)}")
    tools: list[OfferedTool] = []
    echo: list[dict[str, Any]] = []
    dropped: list[str] = []
    for i, value in enumerate(given):
        where = f"tools[{i}]"
        tool = present(mapping(where, value))
        kind = string(f"{where}.type", tool.get("type"))
        if kind not in OWN:
            dropped.append(kind)
            continue
        tools += _namespace(tool, where) if kind == "namespace" else [_tool(tool, where, None)]
        echo.append(value)
    choice = _choice(body.get("tool_choice", "auto"))
    parallel = checks.flag(body, "parallel_tool_calls", True)
    return Toolbox(tuple(tools), choice, parallel, echo, tuple(dict.fromkeys(dropped)))


def _namespace(tool: Mapping[str, Any], where: str) -> list[OfferedTool]:
    name = string(f"{where}.name", tool.get("name"))
    inner = tool.get("tools")
    if not isinstance(inner, list):
        raise wrong(f"{where}.tools", f"must be an array, not {describe(inner)}")
    return [
        _tool(present(mapping(f"{where}.tools[{i}]", one)), f"{where}.tools[{i}]", name) for i, one in enumerate(inner)
    ]


def _tool(tool: Mapping[str, Any], where: str, namespace: str | None) -> OfferedTool:
    kind = one_of(f"{where}.type", tool.get("type"), TAKEN)
    name = string(f"{where}.name", tool.get("name"))
    if kind == "custom":
        shown, told = parse_custom({**tool, "name": visible_name(name, namespace)}, where)
        return OfferedTool(kind, name, namespace, shown, where, told)
    function: dict[str, Any] = {"name": visible_name(name, namespace)}
    if "description" in tool:
        function["description"] = string(f"{where}.description", tool["description"])
    for key in ("parameters", "strict"):
        if key in tool:
            function[key] = tool[key]
    return OfferedTool(kind, name, namespace, {"type": "function", "function": function}, where)


def _choice(value: Any) -> Choice:
    if value in ("auto", "none", "required"):
        return str(value)
    choice = present(mapping("tool_choice", value)) if isinstance(value, dict) else None
    if choice is None:
        raise wrong("tool_choice", f"must be auto, none, required or an object, not {describe(value)}")
    kinds = (*OWN, "allowed_tools")
    if choice.get("type") not in kinds:
        raise wrong("tool_choice.type", f"must be {', '.join(kinds)}, not {describe(choice.get('type'))}")
    return choice
