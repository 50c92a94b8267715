"""Whatever a lawful history says reaches the prompt, with each template that comes with llama.cpp.

Thirteen conversations, each with what its prompt must contain. Where a template cannot show something in any form, the
table beside the conversation says so, and the test fails when that is no longer true.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import pytest

from llamabox.chat.messages import parse_messages
from llamabox.chat.rendering.environment import Refused
from llamabox.chat.rendering.sandbox import Renderer

Renderers = dict[str, Renderer]

USER = {"role": "user", "content": "the question"}
THANKS = [{"role": "assistant", "content": "the answer"}, {"role": "user", "content": "the thanks"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Looks a word up.",
            "parameters": {
                "type": "object",
                "properties": {"word": {"type": "string", "description": "The word."}},
                "required": ["word"],
            },
        },
    }
]


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def calling(*calls: tuple[Any, str, Any], **fields: Any) -> dict[str, Any]:
    """An assistant's message with calls of (id, name, arguments)."""
    told = [{"id": i, "type": "function", "function": {"name": name, "arguments": a}} for i, name, a in calls]
    return {"role": "assistant", "content": None, "tool_calls": told, **fields}


def result(call_id: Any, text: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def prompt(renderer: Renderer, messages: Sequence[Any], **body: Any) -> str:
    conversation = parse_messages({"messages": list(messages), **body})
    return renderer.render(
        conversation.messages,
        conversation.tools,
        conversation.add_generation_prompt,
        conversation.continues,
        conversation.template_kwargs,
        conversation.in_thought,
    )


def lost(renderers: Renderers, messages: Sequence[Any], *texts: str, **body: Any) -> dict[str, list[str]]:
    """By template, which of the texts its prompt lacks."""
    found = {}
    for name, text in prompts(renderers, messages, **body):
        if missing := [wanted for wanted in texts if wanted not in text]:
            found[name] = missing
    return found


def prompts(renderers: Renderers, messages: Sequence[Any], **body: Any) -> Iterator[tuple[str, str]]:
    """With tools and without: templates have a way for each."""
    for name, renderer in renderers.items():
        yield name, prompt(renderer, messages, **body)
        yield name, prompt(renderer, messages, tools=TOOLS, **body)


def test_1_system_and_user(renderers: Renderers) -> None:
    messages = [{"role": "system", "content": "the rule"}, USER, *THANKS]
    assert lost(renderers, messages, "the rule", "the question", "the answer", "the thanks") == {}
    assert lost(renderers, messages[:2], "the rule", "the question") == {}


def test_2_text_in_parts_in_every_role(renderers: Renderers) -> None:
    messages = [
        {"role": "system", "content": parts("rule one", "rule two")},
        {"role": "user", "content": parts("question one", "question two")},
        calling(("call00001", "find", {"key": "value"})),
        result("call00001", parts("result one", "result two")),
        {"role": "assistant", "content": parts("answer one", "answer two")},
        {"role": "user", "content": parts("thanks one", "thanks two")},
    ]
    texts = [f"{what} {n}" for what in ("rule", "question", "result", "answer", "thanks") for n in ("one", "two")]
    assert lost(renderers, messages, *texts) == {}
    assert lost(renderers, messages[:4], *texts[:6]) == {}
    as_python = {
        name for name, text in prompts(renderers, messages) if re.search(r"[{'\"]text[\"']: ?[\"']\w+ one", text)
    }
    assert as_python == set()


def test_3_no_content_beside_calls(renderers: Renderers) -> None:
    """As the first thing, in the middle and as the last."""
    messages = [USER]
    for i in range(3):
        messages += [
            calling((f"call0000{i}", f"find{i}", {f"key{i}": f"value{i}"})),
            result(f"call0000{i}", f"result{i}"),
        ]
    texts = [f"{what}{i}" for what in ("find", "key", "value", "result") for i in range(3)]
    assert lost(renderers, [*messages, *THANKS], *texts, "the thanks") == {}
    assert lost(renderers, messages, *texts) == {}
    assert lost(renderers, messages[:-1], *texts[:-1]) == {}
    plain = [{**m, "content": "" if m.get("tool_calls") else m["content"]} for m in messages]
    for (name, text), (_, other) in zip(prompts(renderers, messages), prompts(renderers, plain), strict=True):
        for word in ("None", "null"):
            assert text.count(word) == other.count(word), f"{name} writes {word}"


@pytest.mark.parametrize("arguments", [{"key": "value"}, '{"key": "value"}'], ids=["object", "text"])
def test_4_calls_of_the_history(renderers: Renderers, arguments: Any) -> None:
    """Content beside them, several in one message; arguments are encoded once."""
    messages = [
        USER,
        calling(
            ("call00001", "find", arguments), ("call00002", "search", {"where": "there"}), content="the announcement"
        ),
        result("call00001", "result one"),
        result("call00002", "result two"),
    ]
    texts = ["the announcement", "find", "key", "value", "search", "where", "there", "result one", "result two"]
    assert lost(renderers, messages, *texts) == {}
    assert lost(renderers, [*messages, *THANKS, *messages, *THANKS], *texts) == {}
    twice = {name for name, text in prompts(renderers, messages) if re.search(r"\\+\"key|\{'key", text)}
    assert twice == set()


def test_5_arguments_that_are_no_object(renderers: Renderers) -> None:
    for arguments, wanted in (('{"city": "Par', "Par"), ('["listed"]', "listed"), ("null", ""), (None, ""), ("", "")):
        messages = [USER, calling(("call00001", "find", arguments)), result("call00001", "the result")]
        assert lost(renderers, messages, "find", wanted, "the result") == {}, arguments
    messages = [USER, calling(("call00001", "find", ["as it is"])), result("call00001", "the result"), *THANKS]
    assert lost(renderers, messages, "find", "as it is", "the result") == {}


@pytest.mark.parametrize("call_id", ["toolu_01A-b.c", "call_" + "0123456789abcdef" * 4, "7", "", None])
def test_6_call_ids(renderers: Renderers, call_id: Any) -> None:
    messages = [USER, calling((call_id, "find", {"key": "value"})), result(call_id, "the result"), *THANKS]
    assert lost(renderers, messages, "find", "value", "the result", "the thanks") == {}
    strange = [USER, result("call00009", "a result of nothing"), *THANKS]
    assert lost(renderers, strange, "a result of nothing") == {}


def test_7_developer(renderers: Renderers) -> None:
    developer = {"role": "developer", "content": "the instruction"}
    assert lost(renderers, [developer, USER, *THANKS], "the instruction", "the question") == {}
    messages = [{"role": "system", "content": "the rule"}, developer, USER]
    assert lost(renderers, messages, "the rule", "the instruction", "the question") == {}
    assert lost(renderers, [USER, *THANKS[:1], developer, USER], "the instruction", "the question") == {}


def test_8_the_given_start_of_an_answer(renderers: Renderers) -> None:
    """It stands where the template would put it in the history, not in a thought or behind a role's name."""
    start = {"role": "assistant", "content": "A colour is  \n"}
    for name, renderer in renderers.items():
        text = prompt(renderer, [USER, start])
        # Nemotron Nano v2 opens a thought before its last message, but not before those of the history.
        more = THANKS[1:] if name == "NVIDIA-Nemotron-Nano-v2" else []
        whole = prompt(renderer, [USER, start, *more], continue_final_message=False, add_generation_prompt=False)
        before = whole[: whole.rindex("A colour is")]
        assert text == before + start["content"], name
        assert not re.search(r"[<\[]think[>\]]\s*$", before, re.IGNORECASE), f"{name}: {before[-40:]!r}"
    text = prompt(renderers["openai-gpt-oss-120b"], [USER, start])
    assert text.endswith("<|start|>assistant<|channel|>final<|message|>A colour is  \n")


THINKING = {
    "Bielik-11B-v3.0-Instruct",
    "ByteDance-Seed-OSS",
    "Cohere2MoE",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
    "GLM-4.6",
    "GLM-4.7-Flash",
    "Kimi-K2-Thinking",
    "Kimi-K3",
    "LFM2.5-8B-A1B",
    "MiniMax-M2",
    "MiniMax-M3",
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    "Qwen-Qwen3-0.6B",
    "Qwen3.5-4B",
    "Spark2.5",
    "StepFun3.5-Flash",
    "google-gemma-4-31B-it",
    "google-gemma-4-31B-it-interleaved",
    "inclusionai-ling-3.0-flash",
    "mistralai-Ministral-3-14B-Reasoning-2512",
    "muse-glimmer",
    "openai-gpt-oss-120b",
    "openbmb-MiniCPM5-1B",
    "poolside-Laguna-S-2.1",
    "poolside-Laguna-XS-2.1",
    "poolside-Laguna-XS.2",
    "tencent-Hy3",
    "upstage-Solar-Open-100B",
}
"""Templates with a place for a thought before a call. The others were made for histories without thoughts."""

WHEN_ASKED = {
    "Qwen-QwQ-32B": "enable_thinking",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": "enable_thinking",
    "deepseek-ai-DeepSeek-V3.1": "thinking",
    "deepseek-ai-DeepSeek-V3.2": "thinking",
}
"""Those that think when a variable says so."""


def test_8_the_given_start_of_a_thought(renderers: Renderers) -> None:
    """Either the prompt ends with it, or the template has no place for a thought and the request is refused."""
    thought = {"role": "assistant", "content": "", "reasoning_content": "The rainbow"}
    refused = set()
    for name, renderer in renderers.items():
        try:
            assert prompt(renderer, [USER, thought]).endswith("The rainbow"), name
        except Refused:
            refused.add(name)
    assert {"Qwen-Qwen2.5-7B-Instruct", "meta-llama-Llama-3.1-8B-Instruct", *WHEN_ASKED} <= refused
    assert not refused & THINKING
    for name, variable in WHEN_ASKED.items():
        text = prompt(renderers[name], [USER, thought], chat_template_kwargs={variable: True})
        assert re.search(r"<think>\s*The rainbow$", text), name
    gpt_oss = prompt(renderers["openai-gpt-oss-120b"], [USER, thought])
    assert gpt_oss.endswith("<|start|>assistant<|channel|>analysis<|message|>The rainbow")
    both = {**thought, "content": "Blue"}
    for name in ("Qwen3.5-4B", "openai-gpt-oss-120b", "mistralai-Ministral-3-14B-Reasoning-2512"):
        text = prompt(renderers[name], [USER, both])
        assert "The rainbow" in text, name
        assert text.endswith("Blue"), name


def test_9_a_thought_before_a_call(renderers: Renderers) -> None:
    """Each template with a place for it shows it, whatever the place is called, alone and beside content."""
    others = set(renderers) - THINKING
    thinking = calling(("call00001", "find", {"key": "value"}), reasoning_content="the thought")
    answer = result("call00001", "the result")
    texts = ("the thought", "find", "value", "the result")
    assert lost(renderers, [USER, thinking, answer], *texts) == {name: ["the thought"] for name in others}
    announced = [USER, {**thinking, "content": "the announcement"}, answer]
    assert lost(renderers, announced, "the announcement", *texts) == {name: ["the thought"] for name in others}
    named = {"role": "assistant", "content": None, "reasoning": "the thought", "tool_calls": thinking["tool_calls"]}
    assert lost(renderers, [USER, named, answer], *texts) == {name: ["the thought"] for name in others}


def test_10_several_system_messages(renderers: Renderers) -> None:
    first, second = ({"role": "system", "content": text} for text in ("the first rule", "the second rule"))
    assert lost(renderers, [first, second, USER], "the first rule", "the second rule", "the question") == {}
    texts = ("the first rule", "the second rule", "the question", "the answer")
    assert lost(renderers, [first, USER, *THANKS[:1], second, USER], *texts) == {}
    assert lost(renderers, [USER, *THANKS[:1], second, USER], "the second rule") == {}
    assert (
        lost(renderers, [first, USER, calling(("call00001", "find", {})), result("call00001", "a"), second], *texts[:3])
        == {}
    )


def test_11_tools_or_none(renderers: Renderers) -> None:
    """Without tools a plain chat is rendered and nothing is said of tools; with them, they are named.

    Seven templates name none: for them the system tells the tools.
    """
    silent = set()
    for name, renderer in renderers.items():
        without, given = prompt(renderer, [USER]), prompt(renderer, [USER], tools=TOOLS)
        assert without == prompt(renderer, [USER], tools=[]), name
        with_rule = [{"role": "system", "content": "the rule"}, USER]
        assert len(prompt(renderer, with_rule)) <= len(prompt(renderer, with_rule, tools=TOOLS)), name
        assert not re.search(r"None|null|\[\]", without.removeprefix("]~!b[]~b]")), name
        if "look_up" not in given:
            silent.add(name)
    assert silent == set()


def function(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "look_up", **fields}}


WORD = {"type": "string", "description": None, "enum": None, "default": None}


@pytest.mark.parametrize(
    "tool",
    [
        function(),
        {"function": {"name": "look_up", "description": None, "parameters": None, "strict": None}},
        function(description="Looks up.", parameters={}),
        function(parameters={"type": "object", "properties": None, "required": None}),
        function(parameters={"type": "object", "properties": {"word": {}}}),
        function(parameters={"type": "object", "properties": {"word": WORD}, "required": ["word"]}),
        function(parameters={"properties": {"word": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}),
        function(parameters={"properties": {"word": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"enum": ["a", 1, None]}}}),
        function(parameters={"type": "object", "properties": {"word": {"type": ["string", "null"]}}}),
        function(parameters={"type": "object", "properties": {"word": {"type": "array"}, "n": {"const": 1}}}),
    ],
    ids=range(10),
)
def test_11_tools_that_say_little(renderers: Renderers, tool: dict[str, Any]) -> None:
    """A tool needs no more than a name, and its schema has no word that it must have."""
    found = {name: failure(renderer, tool) for name, renderer in renderers.items()}
    assert {name: what for name, what in found.items() if what} == {}


def failure(renderer: Renderer, tool: dict[str, Any]) -> str:
    """What is wrong with the prompt that shows the tool."""
    try:
        text = prompt(renderer, [USER], tools=[tool])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "" if "look_up" in text else "it is not named"


def test_12_whole_numbers_of_any_size(renderers: Renderers) -> None:
    number = "123456789012345678901234567890"
    messages = [USER, calling(("call00001", "find", f'{{"key": {number}}}')), result("call00001", "the result")]
    assert lost(renderers, messages, number) == {}


def test_13_a_refusal(renderers: Renderers) -> None:
    refusal = {"role": "assistant", "content": None, "refusal": "I will not."}
    assert lost(renderers, [USER, refusal, THANKS[1]], "I will not.", "the thanks") == {}


def test_today_is_told_as_llama_server_does(renderers: Renderers) -> None:
    today = datetime.now()
    for name, pattern in (
        ("meta-llama-Llama-3.1-8B-Instruct", "%d %b %Y"),
        ("fireworks-ai-llama-3-firefunction-v2", "%b %d %Y"),
        ("openai-gpt-oss-120b", "%Y-%m-%d"),
    ):
        assert today.strftime(pattern) in prompt(renderers[name], [USER])
    kwargs = {"date_string": "1 Jan 1999"}
    assert "1 Jan 1999" in prompt(renderers["meta-llama-Llama-3.1-8B-Instruct"], [USER], chat_template_kwargs=kwargs)


def test_14_turns_as_agents_send_them(renderers: Renderers) -> None:
    """Messages of one role in a row, a late system message, all is shown."""
    messages = [
        {"role": "system", "content": "the rule"},
        USER,
        {"role": "user", "content": "the files"},
        calling(("call00001", "look_up", {"word": "x"})),
        result("call00001", "the result"),
        {"role": "system", "content": "the reminder"},
        {"role": "assistant", "content": "the first"},
        {"role": "assistant", "content": "the second"},
        {"role": "user", "content": "the thanks"},
    ]
    texts = [m["content"] for m in messages if m["content"]]
    assert lost(renderers, messages, *texts, "look_up") == {}
