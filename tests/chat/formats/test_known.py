"""Forms by name are those that are found for a template of their family."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llamabox.chat.formats.known import FAMILIES, FORMS, KINDS
from llamabox.chat.rendering.sandbox import Renderer

TEMPLATES = {
    "hermes": "Qwen-Qwen3-0.6B",
    "mistral-nemo": "mistralai-Mistral-Nemo-Instruct-2407",
    "mistral": "mistralai-Ministral-3-14B-Reasoning-2512",
    "kimi-k2": "Kimi-K2-Thinking",
    "deepseek-v3": "deepseek-ai-DeepSeek-V3.1",
    "qwen3-coder": "Qwen3.5-4B",
    "glm-4": "GLM-4.6",
    "gpt-oss": "openai-gpt-oss-120b",
}
ALIKE = {
    "llama-3": "meta-llama-Llama-3.1-8B-Instruct",
    "granite-3": "ibm-granite-granite-3.3-2B-Instruct",
    "lfm2": "LFM2.5-8B-A1B",
    "gemma-4": "google-gemma-4-31B-it",
}
"""Families whose templates leave out a part, or differ in blanks from each other."""


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_family_has_the_form_of_its_template(renderers: dict[str, Renderer], family: str) -> None:
    assert renderers[TEMPLATES[family]].form == FAMILIES[family]


@pytest.mark.parametrize("family", ALIKE)
def test_a_family_has_the_calls_of_its_template(renderers: dict[str, Renderer], family: str) -> None:
    found, known = renderers[ALIKE[family]].form.calls, FAMILIES[family].calls
    assert found is not None
    assert known is not None
    assert replace(found, separator="", section_close="") == replace(known, separator="", section_close="")


def test_a_name_stands_for_a_form_of_its_kind() -> None:
    assert {FORMS[kind].name for kind in KINDS} == set(KINDS)
