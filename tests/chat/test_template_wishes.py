"""How much a model is to think reaches its prompt, with the templates of real models."""

from __future__ import annotations

import pytest

from llamabox.chat.config import EFFORTS
from llamabox.chat.messages import parse_messages
from llamabox.chat.rendering.sandbox import Renderer
from llamabox.errors import InvalidRequest
from llamabox.server.conversation.template_wishes import template_wishes

MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]


def prompt(renderer: Renderer, source: str, effort: str) -> str:
    conversation = parse_messages({"messages": MESSAGES})
    wishes = template_wishes({"reasoning_effort": effort}, source)
    return renderer.render(conversation.messages, None, True, False, wishes)


def test_templates_with_degrees_get_the_effort_by_name(renderers: dict[str, Renderer], sources: dict[str, str]) -> None:
    name = "openai-gpt-oss-120b"
    for effort in ("low", "medium", "high"):
        assert f"Reasoning: {effort}" in prompt(renderers[name], sources[name], effort)


@pytest.mark.parametrize(
    "name", ["Qwen-Qwen3-0.6B", "GLM-4.6", "deepseek-ai-DeepSeek-V3.1", "Kimi-K3", "HuggingFaceTB-SmolLM3-3B"]
)
def test_templates_with_a_switch_think_or_do_not(
    renderers: dict[str, Renderer], sources: dict[str, str], name: str
) -> None:
    found = {effort: prompt(renderers[name], sources[name], effort) for effort in EFFORTS}
    assert found["none"] != found["low"]
    assert len(set(found.values())) == 2


@pytest.mark.parametrize("name", ["MiniMax-M2", "ByteDance-Seed-OSS", "meta-llama-Llama-3.1-8B-Instruct"])
def test_templates_that_cannot_say_it_are_told_of_by_name(sources: dict[str, str], name: str) -> None:
    """The first two speak of thinking in their texts."""
    assert template_wishes({"reasoning_effort": "none"}, sources[name]) == {}
    with pytest.raises(InvalidRequest, match="reasoning_effort"):
        template_wishes({"reasoning_effort": "low"}, sources[name])


def test_a_broken_template_reads_nothing() -> None:
    assert template_wishes({"reasoning_effort": "none"}, "{{ reasoning_effort ) }}") == {}
