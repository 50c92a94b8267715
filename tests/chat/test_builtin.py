"""The built-in templates give libllama's own prompts.

builtin_prompts.json holds what `llama_chat_apply_template` of the pinned llama.cpp answered.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamabox.chat import builtin
from llamabox.chat.rendering.adapt import adapt
from llamabox.chat.rendering.environment import compile_template
from llamabox.chat.rendering.probe import probe

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "builtin_prompts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", builtin.NAMES)
def test_same_prompt_as_libllama(name: str) -> None:
    template = compile_template(builtin.template(name))
    for conversation, (prompt, opening) in zip(GOLDEN["conversations"], GOLDEN["prompts"][name], strict=True):
        messages = [{"role": role, "content": content} for role, content in conversation]
        assert template.render(messages=messages, add_generation_prompt=False) == prompt
        assert template.render(messages=messages, add_generation_prompt=True) == prompt + opening


def test_every_name_of_libllama_is_there() -> None:
    assert set(GOLDEN["prompts"]) == set(builtin.NAMES)
    assert list(builtin.NAMES) == sorted(builtin.NAMES)


@pytest.mark.parametrize("name", builtin.NAMES)
def test_no_turn_of_a_usual_conversation_is_lost(name: str) -> None:
    """With what the probe finds, user, assistant, system and tool texts all reach the prompt."""
    template = compile_template(builtin.template(name))

    def render(messages: Any, variables: Any) -> str | None:
        return template.render(messages=messages, add_generation_prompt=False, **variables)

    can = probe(render, with_tools=False)
    call = {"id": "", "type": "function", "function": {"name": "weather", "arguments": {"town": "Oslo"}}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "the rule"},
        {"role": "user", "content": [{"type": "text", "text": "part one"}, {"type": "text", "text": "part two"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "minus three"},
        {"role": "assistant", "content": "cold"},
        {"role": "user", "content": "thanks"},
    ]
    prompt = render(adapt(messages, can), {}) or ""
    for text in ("the rule", "part one\npart two", "weather", "Oslo", "minus three", "cold", "thanks"):
        assert text in prompt, text
    assert "None" not in prompt
