"""The form that is found for each template of llama.cpp's reads what the template writes.

The oracle is the template: a turn of the assistant's is rendered, and its text, read as an answer, must give the turn's
own text, thought and calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from llamabox.chat.formats.detection.edges import common_start
from llamabox.chat.formats.detection.marks import USER
from llamabox.chat.formats.form import Format
from llamabox.chat.rendering.sandbox import Renderer
from tests.chat.formats.reading import TOOLS, Gathered, read, read_in_all_ways

CODE = 'def f(x):\n    return {"a": [x, "y"]}\n\n# "quoted" \\ é 漢字\n'

TEXT = "The answer is 4."
THOUGHT = "Let me think.\n\nYes."
TURNS: dict[str, tuple[str | None, str | None, list[tuple[str, dict[str, Any]]]]] = {
    "text": (TEXT, None, []),
    "lines": ("First.\n\nSecond <b>line</b> [x] {y}.", None, []),
    "thought": (TEXT, THOUGHT, []),
    "call": (None, None, [("look_up", {"word": "x", "n": 3})]),
    "calls": (None, None, [("stop", {}), ("look_up", {"word": "a b", "n": -1}), ("look_up", {"word": "c"})]),
    "text and call": (TEXT, None, [("look_up", {"word": "x"})]),
    "no arguments": (None, None, [("stop", {})]),
    "code": (
        None,
        None,
        [
            (
                "write",
                {"path": "/tmp/ü.py", "code": CODE, "options": {"a": [1, {"b": "c"}]}, "tags": ["a"], "flag": True},
            )
        ],
    ),
    "all": (TEXT, THOUGHT, [("look_up", {"word": "x"}), ("stop", {})]),
}

FOUND = {
    "json": 16,
    "json-array": 10,
    "name-json": 13,
    "tags": 20,
    "python": 3,
    "braces": 2,
    "channels": 2,
    "generic": 4,
}
"""Templates by the kind of their form."""


@dataclass
class Case:
    """A template, its form, and what it renders."""

    name: str
    render: Callable[..., str | None]
    form: Format
    prompt: str  # what it writes behind the user's text before an answer

    def turn(self, text: str | None, thought: str | None, calls: list[tuple[str, dict[str, Any]]]) -> str | None:
        """What it renders behind the user's text, or None where it refuses."""
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if thought:
            message["reasoning_content"] = thought
        if calls:
            message["tool_calls"] = [
                {"id": f"call0000{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
                for i, (name, arguments) in enumerate(calls)
            ]
        told = self.render([{"role": "user", "content": USER}, message], TOOLS, False)
        return told.rpartition(USER)[2] if told is not None else None

    def end(self) -> str:
        """What ends a turn: the last tag does not reach a reader, it ends the generation."""
        text = self.turn(TEXT, None, [])
        assert text is not None
        return text.rpartition(TEXT)[2]


def render(renderer: Renderer, messages: Any, tools: Any, add_generation_prompt: bool) -> str | None:
    try:
        return renderer.render(messages, tools, add_generation_prompt, False, {})
    except Exception:
        return None


@pytest.fixture(scope="module")
def cases(renderers: dict[str, Renderer]) -> list[Case]:
    made = []
    for name, renderer in renderers.items():
        told = partial(render, renderer)
        prompt = told([{"role": "user", "content": USER}], TOOLS, True) or ""
        made.append(Case(name, told, renderer.form, prompt.rpartition(USER)[2]))
    return made


ENDS = (
    "<|eom_id|>",
    "<|tool_response>",
    "<｜hy_eos:opensource｜>",
    "<|calls|>",
    "</s>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end_of_msg|>",
    "<|call|>",
)
"""Tokens that end a generation, and reach no reader."""

TWO_TURNS = frozenset(
    {
        *("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "NousResearch-Hermes-3-Llama-3.1-8B-tool_use"),
        *("meta-llama-Llama-3.1-8B-Instruct", "meta-llama-Llama-3.2-3B-Instruct", "meta-llama-Llama-3.3-70B-Instruct"),
        *("MiniMax-M1", "Mistral-Small-3.2-24B-Instruct-2506", "mistralai-Mistral-Nemo-Instruct-2407"),
        *("deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B"),
        *("llama-cpp-deepseek-r1", "Cohere2MoE", "CohereForAI-c4ai-command-r7b-12-2024-tool_use"),
        *("muse-glimmer", "openai-gpt-oss-120b", "upstage-Solar-Open-100B", "google-gemma-4-31B-it-interleaved"),
        *("google-gemma-4-31B-it",),
    }
)
"""Templates that write a text and its calls as two turns, or in another order: no answer looks like that."""

ALWAYS_PROMPT = frozenset({"CohereForAI-c4ai-command-r7b-12-2024-tool_use", "CohereForAI-c4ai-command-r-plus-tool_use"})
"""Templates that begin the next turn whether asked to or not."""


@pytest.mark.parametrize("turn", TURNS)
def test_what_a_template_writes_is_read_as_what_was_told(cases: list[Case], turn: str) -> None:
    text, thought, calls = TURNS[turn]
    wrong = {}
    for case in cases:
        if (
            (text and calls and case.name in TWO_TURNS)
            or (case.name in ALWAYS_PROMPT)
            or (thought and case.form.thought is None and case.form.channels is None)
        ):
            continue
        answer = answer_of(case, text, thought, calls)
        if answer is None:
            continue
        body, prompt = answer
        found = read(case.form, [body], tools=TOOLS, prompt=prompt)
        expected = (text or "", thought or "" if thought and thought in body else "", calls)
        if seen(found) != expected and (case.name, turn) not in LOSSY:
            wrong[case.name] = (seen(found), body)
    assert wrong == {}


def seen(found: Gathered) -> tuple[str, str, list[tuple[str, Any]]]:
    return found.text.strip(), found.thought, [(name, as_value(arguments)) for _, name, arguments in found.calls]


def as_value(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def answer_of(
    case: Case, text: str | None, thought: str | None, calls: list[tuple[str, dict[str, Any]]]
) -> tuple[str, str] | None:
    """What a model would have written for the template to write this turn, and the prompt before it."""
    told = case.turn(text, thought, calls)
    if told is None:
        return None
    body = told.removesuffix(case.end()) if case.end().strip() else told
    for end in ENDS:
        body = body.removesuffix(end)
    opened = case.form.thought.open.strip() if case.form.thought else ""
    if body.startswith(case.prompt):
        said = body.removeprefix(case.prompt)
        # Nemotron Nano opens a thought in the history, too, and writes none.
        return said, case.prompt if case.form.thought is None or case.form.thought.close.strip() in said else ""
    start = common_start([body, case.prompt])
    body = body.removeprefix(start)
    if opened and start.rstrip().endswith(opened):
        return body, start if thought and thought in body else ""
    if thought and thought in body and opened and opened not in body:
        return body, case.prompt
    return body, start


LOSSY = {
    ("MiniMax-M3", "code"),  # writes no value of an object in a list
}
"""What a template itself loses."""


def test_answers_are_the_same_however_they_arrive(cases: list[Case]) -> None:
    """Each form once: whole, in any two pieces, by characters."""
    forms: dict[Any, Case] = {}
    for case in cases:
        if case.name not in ALWAYS_PROMPT:
            forms.setdefault((case.form.calls, case.form.channels), case)
    assert len(forms) >= 25
    for case in forms.values():
        for text, thought, calls in (TURNS["calls"], TURNS["all"]):
            answer = answer_of(case, text, thought, calls)
            if answer is not None:
                read_in_all_ways(case.form, answer[0], tools=TOOLS, prompt=answer[1])


GRANITE = {
    "ibm-granite-granite-3.3-2B-Instruct": ("<|tool_call|>[", "]"),
    "ibm-granite-granite-4.0": ("<tool_call>\n", "\n</tool_call>"),
    "ibm-granite-granite-4.1": ("<tool_call>\n", "\n</tool_call>"),
}


def test_granite_calls_tools(cases: list[Case]) -> None:
    """22: with keys in either order, with blanks or without, and with text before the call."""
    call, swapped = ({"name": "stop", "arguments": {}}, {"arguments": {"word": "x"}, "name": "look_up"})
    for case in cases:
        if case.name not in GRANITE:
            continue
        begin, end = GRANITE[case.name]
        for told in (call, swapped):
            for written in (json.dumps(told), json.dumps(told, separators=(",", ":")), json.dumps(told, indent=2)):
                found = read_in_all_ways(case.form, f"I look.\n{begin}{written}{end}", tools=TOOLS)
                assert seen(found) == ("I look.", "", [(told["name"], told["arguments"])]), case.name


def test_the_kinds_of_forms_that_are_found(cases: list[Case]) -> None:
    kinds: dict[str, int] = {}
    for case in cases:
        kinds[case.form.name] = kinds.get(case.form.name, 0) + 1
    assert kinds == FOUND


def test_a_form_survives_the_wire(cases: list[Case]) -> None:
    for case in cases:
        assert Format.from_wire(json.loads(json.dumps(case.form.to_wire()))) == case.form
