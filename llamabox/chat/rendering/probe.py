"""Finding out what a chat template can take: each form is tried, and the first that loses nothing is kept.

A form is tried with the conversations in which it will be used: for each role, at the beginning, in the middle and at
the end. Every text in them is a mark that stands nowhere else, so that a template that prints its list of tools does
not pass for one that prints calls. The fallbacks are tried like the rest. Pure; runs where the template runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llamabox.chat.rendering.adapt import adapt
from llamabox.chat.rendering.capabilities import Capabilities, Message

Render = Callable[[Sequence[Message], Mapping[str, Any]], str | None]
"""(messages, further variables) → the text, or None where the template raised."""

NO_TOOLS: dict[str, dict[str, Any]] = {
    "none": {"tools": None, "documents": None},
    "absent": {},
    "empty": {"tools": []},
    "text": {"functions": ""},
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "d",
        "parameters": {"type": "object", "properties": {"k": {"type": "string", "description": "d"}}, "required": []},
    },
}


def probe(render: Render, *, with_tools: bool) -> Capabilities:
    """Try the template."""
    plain = [{"role": "user", "content": "q7f3a"}]
    texts = {name: render(plain, variables) for name, variables in NO_TOOLS.items()}
    # The name for "none" that makes the template say least: some take None for a list of tools.
    no_tools = min(texts, key=lambda name: 1 << 40 if (text := texts[name]) is None else len(text))
    variables = tool_variables([TOOL], no_tools) if with_tools else NO_TOOLS[no_tools]
    trial = _Trial(render, variables, render(plain, variables) or "")
    can = Capabilities(no_tools=no_tools, developer="own" if _knows_developer(render, variables) else "system")
    if with_tools and TOOL["function"]["name"] not in trial.plain:
        can = replace(can, tools="told")
    for question in QUESTIONS:
        can = trial.settle(question, can)
    return replace(can, shows_all=all(trial.shows(words, can) for words in ("S U A U-long", "S-long U A-call T-long")))


def tool_variables(tools: Sequence[Mapping[str, Any]], no_tools: str) -> dict[str, Any]:
    """The variables that tell a template of the tools. A template that needs the text `functions` is given it."""
    variables = {**NO_TOOLS[no_tools], "tools": tools}
    if no_tools == "text":
        variables["functions"] = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
    return variables


def _knows_developer(render: Render, variables: Mapping[str, Any]) -> bool:
    """Whether the role is more to the template than a name to print."""
    texts = [
        render([{"role": role, "content": "d7f3a"}, {"role": "user", "content": "q7f3a"}], variables) or ""
        for role in ("developer", "stranger")
    ]
    return "d7f3a" in texts[0] and texts[0] != texts[1].replace("stranger", "developer")


@dataclass(frozen=True, slots=True)
class ProbeQuestion:
    """Choose one of some forms. A form is a few fields of Capabilities; a scene is what `_scene` reads."""

    forms: Sequence[Mapping[str, Any]]
    scenes: Sequence[str]
    slips: Sequence[str] = ()  # what a template prints that was given a form it does not expect


@dataclass(frozen=True, slots=True)
class _Trial:
    render: Render
    variables: Mapping[str, Any]
    plain: str  # what the template prints for next to nothing

    def settle(self, question: ProbeQuestion, can: Capabilities) -> Capabilities:
        """`can` with the first form that shows every mark of every scene, or else the one that shows most."""
        scenes = [_scene(words) for words in question.scenes]
        best, most = can, -1
        for form in question.forms:
            tried = replace(can, **form)
            shown = sum(self._shown(messages, marks, question.slips, tried) for messages, marks in scenes)
            if shown > most:
                best, most = tried, shown
            if shown == sum(len(marks) for _, marks in scenes):
                break
        return best

    def shows(self, words: str, can: Capabilities) -> bool:
        messages, marks = _scene(words)
        return self._shown(messages, marks, (), can) == len(marks)

    def _shown(self, messages: list[Message], marks: list[str], slips: Sequence[str], can: Capabilities) -> int:
        text = self.render(adapt(messages, can), self.variables)
        if text is None:
            return 0
        n_slips = sum(max(0, text.count(slip) - self.plain.count(slip)) for slip in slips)
        return max(0, sum(mark in text for mark in marks) - n_slips)


def _scene(words: str) -> tuple[list[Message], list[str]]:
    """The messages and marks of a scene. A word is a message: the letter of its role, then what it has.

    parts: content in parts. call: a call; cut, list: one with such arguments; odd: one with such an id. say: content
    beside it. long: content of some length. think: a thought. stray: an answer to no call.
    """
    marks: list[str] = []
    messages: list[Message] = []
    waiting: list[str] = []

    def mark() -> str:
        marks.append(f"m{len(marks)}q7f3a")
        return marks[-1]

    for word in words.split():
        letter, *has = word.split("-")
        calls: list[dict[str, Any]] = []
        for kind in has:
            if kind in ("call", "cut", "list", "odd"):
                name, key, value = mark(), mark(), mark()
                arguments: object = {key: value}
                if kind == "cut":
                    arguments = f'{{"{key}": "{value}'
                elif kind == "list":
                    arguments = json.dumps([key, value])
                call_id = f"toolu_{name}-odd" if kind == "odd" else f"call{len(marks):05d}"
                calls.append({"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}})
        message: Message = {"role": ROLES[letter], "content": None}
        if "parts" in has:
            message["content"] = [{"type": "text", "text": mark()} for _ in range(2)]
        elif not calls or "say" in has:
            message["content"] = mark()
        if "long" in has:
            marks[-1] = message["content"] = f"{marks[-1]} " * 500 + "end"
        if "think" in has:
            message["reasoning_content"] = mark()
        if calls:
            message["tool_calls"] = calls
            waiting = [call["id"] for call in calls]
        if letter == "T":
            message["tool_call_id"] = "unknown01" if "stray" in has else waiting.pop(0)
        messages.append(message)
    return messages, marks


ROLES = {"U": "user", "A": "assistant", "S": "system", "D": "developer", "T": "tool"}


def _forms(name: str, *values: str) -> tuple[dict[str, str], ...]:
    return tuple({name: value} for value in values)


CONTENT = ("given", "text", "parts")
LISTED = ("'type':", '"type":', "'text':", '"text":', "'thinking':", '"thinking":')
ENCODED = ('\\"', "{'")
CALLS = (
    *(
        {"results": results, "calls": calls, "silence": silence}
        for results in ("tool", "user")
        for calls in ("object", "text")
        for silence in ("null", "empty", "absent")
    ),
    {"calls": "words", "results": "tool"},
    {"calls": "words", "results": "user"},
)
QUESTIONS = (
    ProbeQuestion(_forms("turns", "given", "merged"), ("U U A U", "U A A U")),
    ProbeQuestion(
        _forms("user_content", *CONTENT), ("U U", "U-parts", "U A U-parts A U", "S U-parts A U-parts"), LISTED
    ),
    ProbeQuestion(_forms("assistant_content", *CONTENT), ("U A U", "U A-parts U A-parts U"), LISTED),
    ProbeQuestion(
        _forms("system", "anywhere", "leading", "first", "nowhere"),
        ("S U", "S U A U", "S S U", "S U A S U", "U A S U", "S S U A S S U"),
    ),
    ProbeQuestion(({}, {"developer": "system"}), ("D U", "S D U", "D U A D U")),
    ProbeQuestion(_forms("system_content", *CONTENT), ("S U", "S-parts U", "S-parts U-parts"), LISTED),
    ProbeQuestion(
        CALLS,
        ("U A-call", "U A-call T", "U A-call T A U", "S U A U A-call T A-call T A U"),
        ENCODED,
    ),
    ProbeQuestion(
        _forms("silence", "null", "empty", "absent"),
        ("U A-call", "U A-call T A U", "U A U A-call T A-call T A U"),
        ("None", "null"),
    ),
    ProbeQuestion(_forms("tool_content", *CONTENT), ("U A-call T", "U A-call T-parts", "U A-call T-parts A U"), LISTED),
    ProbeQuestion(({}, {"system": "nowhere"}), ("S U A-call T", "S U A U A-call T")),
    ProbeQuestion(
        _forms("beside_calls", "one", "two", "bridged", "words"), ("U A-say-call", "U A-say-call T A U A-say-call T")
    ),
    ProbeQuestion(_forms("parallel", "one", "split"), ("U A-call-call", "U A-call-call-call T T T A U")),
    ProbeQuestion(
        _forms("thought", "reasoning_content", "thinking", "reasoning", "thought", "part"),
        ("U A-think-call T", "U A U A-think-call T A-think-call T"),
        LISTED,
    ),
    ProbeQuestion(
        _forms("thought_beside", "one", "two"), ("U A-think-say-call T", "U A-think-say-call T A-think-call T")
    ),
    ProbeQuestion(_forms("ids", "given", "nine"), ("U A-odd", "U A-odd-odd T T", "U A-odd T A U")),
    ProbeQuestion(_forms("raw_arguments", "given", "wrapped"), ("U A-cut T", "U A-list T", "U A-cut-list T T A U")),
    ProbeQuestion(_forms("stray_results", "tool", "user"), ("U T-stray", "U A-call T T-stray A U")),
)
