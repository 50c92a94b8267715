"""Forms by name, for `--chat-format`: where a template misleads, its user may say how the model writes."""

from __future__ import annotations

from collections.abc import Mapping

from llamabox.chat.formats.form import (
    GENERIC,
    INDEX,
    PLAIN,
    BracedCalls,
    Channels,
    Format,
    JsonCalls,
    NamedCalls,
    PythonCalls,
    TaggedCalls,
    Thought,
)

THINK = Thought(open="<think>\n", close="\n</think>")


FAMILIES: Mapping[str, Format] = {
    "hermes": Format(
        name="json",
        thought=THINK,
        calls=JsonCalls(open="<tool_call>\n", close="\n</tool_call>", separator="\n"),
        before_calls="\n",
    ),
    "llama-3": Format(name="json", calls=JsonCalls(arguments_key="parameters")),
    "mistral-nemo": Format(
        name="json-array",
        calls=JsonCalls(section_open="[TOOL_CALLS]", separator=", ", is_array=True, id_key="id"),
    ),
    "phi-4": Format(
        name="json-array",
        calls=JsonCalls(section_open="<|tool_call|>", section_close="<|/tool_call|>", separator=", ", is_array=True),
    ),
    "granite-3": Format(
        name="json-array",
        thought=Thought(open="<think>", close="</think>"),
        calls=JsonCalls(section_open="<|tool_call|>", separator=", ", is_array=True),
    ),
    "mistral": Format(
        name="name-json",
        thought=Thought(open="[THINK]", close="[/THINK]"),
        calls=NamedCalls(open="[TOOL_CALLS]", name_close="[ARGS]"),
    ),
    "kimi-k2": Format(
        name="name-json",
        thought=Thought(open="<think>", close="</think>"),
        calls=NamedCalls(
            section_open="<|tool_calls_section_begin|>",
            open="<|tool_call_begin|>functions.",
            name_close=f":{INDEX}<|tool_call_argument_begin|>",
            close="<|tool_call_end|>",
            section_close="<|tool_calls_section_end|>",
        ),
    ),
    "deepseek-v3": Format(
        name="name-json",
        thought=Thought(open="<think>", close="</think>"),
        calls=NamedCalls(
            section_open="<｜tool▁calls▁begin｜>",
            open="<｜tool▁call▁begin｜>",
            name_close="<｜tool▁sep｜>",
            close="<｜tool▁call▁end｜>",
            section_close="<｜tool▁calls▁end｜>",
        ),
    ),
    "qwen3-coder": Format(
        name="tags",
        thought=THINK,
        calls=TaggedCalls(
            section_open="<tool_call>\n",
            open="<function=",
            name_close=">\n",
            key_open="<parameter=",
            key_close=">\n",
            value_close="\n</parameter>",
            value_separator="\n",
            close="\n</function>",
            section_close="\n</tool_call>",
            separator="\n",
            repeats=True,
        ),
        before_calls="\n\n",
    ),
    "glm-4": Format(
        name="tags",
        thought=Thought(open="<think>", close="</think>"),
        calls=TaggedCalls(
            open="<tool_call>",
            name_close="\n",
            key_open="<arg_key>",
            key_close="</arg_key>\n<arg_value>",
            value_close="</arg_value>",
            value_separator="\n",
            close="\n</tool_call>",
            separator="\n",
        ),
        before_calls="\n",
    ),
    "lfm2": Format(
        name="python",
        thought=THINK,
        calls=PythonCalls(section_open="<|tool_call_start|>", section_close="<|tool_call_end|>", separator=", "),
    ),
    "gemma-4": Format(
        name="braces",
        thought=Thought(open="<|channel>thought\n", close="<channel|>"),
        calls=BracedCalls(open="<|tool_call>call:", close="<tool_call|>", quote='<|"|>'),
    ),
    "gpt-oss": Format(
        name="channels",
        channels=Channels(
            start="<|start|>assistant",
            channel="<|channel|>",
            header_close="<|message|>",
            ends=("<|end|>", "<|return|>", "<|call|>"),
            function="functions.",
        ),
    ),
    GENERIC.name: GENERIC,
    PLAIN.name: PLAIN,
}
"""The forms of some families of models."""

KINDS: Mapping[str, str] = {
    "json": "hermes",
    "json-array": "mistral-nemo",
    "name-json": "mistral",
    "tags": "qwen3-coder",
    "python": "lfm2",
    "braces": "gemma-4",
    "channels": "gpt-oss",
}
"""A family of each kind of form, which the kind's name stands for."""

FORMS: Mapping[str, Format] = {**FAMILIES, **{kind: FAMILIES[family] for kind, family in KINDS.items()}}
"""All forms that `--chat-format` may name."""
