"""Reads answers, and gathers their parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamabox.chat.answer import AnswerParser
from llamabox.chat.custom import InputFormat
from llamabox.chat.formats.form import Format
from llamabox.chat.parts import Arguments, Call, Input, Part, Reasoning, Text


@dataclass
class Gathered:
    """An answer's parts, put together: `calls` are (id, name, arguments or input)."""

    text: str = ""
    thought: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)


def gather(parts: Iterable[Part]) -> Gathered:
    found = Gathered()
    for part in parts:
        match part:
            case Text(text):
                assert text
                found.text += text
            case Reasoning(text):
                assert text
                found.thought += text
            case Call(index, call_id, name):
                assert index == len(found.calls), "calls are numbered from 0"
                found.calls.append((call_id, name, ""))
            case Arguments(index, text) | Input(index, text):
                assert index == len(found.calls) - 1, "arguments follow their call"
                assert text
                call_id, name, before = found.calls[index]
                found.calls[index] = (call_id, name, before + text)
    return found


def read(
    form: Format,
    pieces: Sequence[str],
    *,
    tools: Sequence[Any] = (),
    inputs: Mapping[str, InputFormat] | None = None,
    prompt: str = "",
) -> Gathered:
    """The parts of an answer that arrives in these pieces."""
    parser = AnswerParser(form, tools=tools, inputs=inputs, prompt=prompt)
    parts = [part for piece in pieces for part in parser.push(piece)]
    return gather([*parts, *parser.finish()])


def read_in_all_ways(form: Format, text: str, *, tools: Sequence[Any] = (), prompt: str = "") -> Gathered:
    """The parts of an answer, which are the same however it arrives: whole, in any two pieces, by characters."""
    whole = read(form, [text], tools=tools, prompt=prompt)
    for i in range(1, len(text)):
        assert read(form, [text[:i], text[i:]], tools=tools, prompt=prompt) == whole, f"cut behind {text[:i]!r}"
    assert read(form, list(text), tools=tools, prompt=prompt) == whole, "by characters"
    return whole


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": []}
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}}


TEXT = {"type": "string", "description": "d"}
TOOLS = [
    tool("look_up", word=TEXT, n={"type": "integer", "description": "d"}),
    tool("stop"),
    tool(
        "write",
        path=TEXT,
        code=TEXT,
        options={"type": "object", "description": "d"},
        tags={"type": "array", "items": {"type": "string"}, "description": "d"},
        flag={"type": "boolean", "description": "d"},
    ),
]
