"""What comes back renders to what was generated: the prompt of a second turn begins with the first and its answer.

So its cells are there already. The oracle is the template: what it renders for a turn is what its model writes, with
arguments in JSON as models write them at times.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from jinja2 import TemplateError

from llamabox.chat.messages import parse_messages
from llamabox.chat.rendering.sandbox import Renderer
from llamabox.server.conversation.template_wishes import template_wishes
from tests.chat.formats.reading import TOOLS, Gathered, read
from tests.chat.formats.test_real_formats import ENDS

USER = {"role": "user", "content": "uq7f3a"}
THOUGHT = "Let me think.\n\nYes."
CALLS = [("look_up", {"word": "a b", "n": -1}), ("stop", {})]
TURNS: dict[str, tuple[str | None, str, list[tuple[str, dict[str, Any]]]]] = {
    "text": ("The answer is 4.", "", []),
    "thought": ("The answer is 4.", THOUGHT, []),
    "call": (None, "", CALLS[:1]),
    "thought and call": (None, THOUGHT, CALLS[:1]),
    "two calls": (None, "", CALLS),
}
SPELLINGS = ('{"word": "a b", "n": -1}', '{"n": -1, "word": "a b"}', '{ "word" : "a\\u0020b",  "n":-1 }')
"""Of the first call's arguments: as templates write them, and as some models do."""


def prompt(renderer: Renderer, source: str, messages: list[dict[str, Any]], *, opens: bool = True) -> str:
    conversation = parse_messages({"messages": messages, "tools": TOOLS}, prefills=False)
    wishes = template_wishes({}, source)
    return renderer.render(conversation.messages, conversation.tools, opens, False, wishes)


def message(text: str | None, thought: str, calls: list[tuple[str, str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {"role": "assistant", "content": text}
    if thought:
        made["reasoning_content"] = thought
    if calls:
        made["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for call_id, name, arguments in calls
        ]
    return made


def came_back(found: Gathered) -> list[dict[str, Any]]:
    """The answer as a client sends it back, and what follows it."""
    results = [{"role": "tool", "tool_call_id": call_id, "content": "ok"} for call_id, _, _ in found.calls]
    behind = results or [{"role": "user", "content": "Thanks."}]
    return [message(found.text or None, found.thought, found.calls), *behind]


def generated(renderer: Renderer, source: str, turn: str) -> tuple[str, str] | None:
    """The first turn's prompt, and what a model writes behind it. None: no model writes what the template renders."""
    text, thought, calls = TURNS[turn]
    named = [(f"call0000{i}", name, arguments) for i, (name, arguments) in enumerate(calls)]
    try:
        first = prompt(renderer, source, [USER])
        whole = prompt(renderer, source, [USER, message(text, thought, named)], opens=False)
        end = prompt(renderer, source, [USER, message("zq7f3a", "", [])], opens=False).rpartition("zq7f3a")[2]
    except TemplateError:
        return None
    if not whole.startswith(first) or (thought and thought not in whole):
        return None
    said = whole.removeprefix(first)
    said = said.removesuffix(end) if end.strip() else said
    for one in ENDS:
        said = said.removesuffix(one)
    return first, said.rstrip()


@pytest.mark.parametrize("turn", TURNS)
def test_the_prompt_of_a_second_turn_begins_with_what_was_generated(
    renderers: dict[str, Renderer], sources: dict[str, str], turn: str
) -> None:
    n_held: int = 0
    changed: set[str] = set()
    for name, renderer in renderers.items():
        found = generated(renderer, sources[name], turn)
        if found is None:
            continue
        first, said = found
        for spelling in SPELLINGS if SPELLINGS[0] in said else SPELLINGS[:1]:
            answer = said.replace(SPELLINGS[0], spelling)
            read_back = read(renderer.form, [answer], tools=TOOLS, prompt=first)
            second = prompt(renderer, sources[name], [USER, *came_back(read_back)])
            if second.startswith(first + answer):
                n_held += 1
            else:
                changed.add(name)
    assert (changed, n_held) == (CHANGED[turn], N_HELD[turn])


NOT_ALIKE = frozenset({"NVIDIA-Nemotron-Nano-v2", "Qwen-Qwen3-0.6B"})
"""Templates that show a turn in another way once it is not the last, or tell tools in the last one alone."""

OTHER_CALLS = frozenset({"CohereForAI-c4ai-command-r7b-12-2024-tool_use", "unsloth-Apriel-1.5"})
"""Templates that print the arguments in a way of their own."""

CHANGED: dict[str, frozenset[str]] = {
    "text": NOT_ALIKE
    | {
        *("Mistral-Small-3.2-24B-Instruct-2506", "mistralai-Mistral-Nemo-Instruct-2407", "Reka-Edge"),
        *("Qwen3.5-4B", "StepFun3.5-Flash"),
    },
    "thought": frozenset(
        {
            *("GLM-4.6", "GLM-4.7-Flash", "LFM2.5-8B-A1B", "MiniMax-M2", "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"),
            *("Qwen-Qwen3-0.6B", "Qwen3.5-4B", "StepFun3.5-Flash", "openai-gpt-oss-120b", "openbmb-MiniCPM5-1B"),
            "upstage-Solar-Open-100B",
        }
    ),
    "call": NOT_ALIKE | OTHER_CALLS,
    "thought and call": frozenset(),
    "two calls": NOT_ALIKE
    | OTHER_CALLS
    | {
        *("GigaChat3-10B-A1.8B", "GigaChat3.1-10B-A1.8B", "meta-llama-Llama-3.1-8B-Instruct", "openai-gpt-oss-120b"),
        *("meta-llama-Llama-3.2-3B-Instruct", "meta-llama-Llama-3.3-70B-Instruct"),  # one call in a message
    },
}
"""By turn, the templates that write it in another way once it is history: thoughts of earlier turns are left out."""

N_HELD = {"text": 48, "thought": 10, "call": 118, "thought and call": 36, "two calls": 100}
"""By turn, the answers that keep their text."""


def test_the_spellings_are_one_value() -> None:
    assert len({json.dumps(json.loads(one), sort_keys=True) for one in SPELLINGS}) == 1
