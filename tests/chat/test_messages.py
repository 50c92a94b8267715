from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.chat.messages import parse_messages
from llamabox.errors import InvalidRequest

USER = {"role": "user", "content": "hi"}
NAMES = ["role", "content", "type", "text", "tool_calls", "function", "name", "arguments", "id"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


def refused(body: dict[str, Any]) -> str:
    """The field that the refusal names."""
    with pytest.raises(InvalidRequest) as caught:
        parse_messages(body)
    assert caught.value.field
    return caught.value.field


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        (None, "messages"),
        ("string", "messages"),
        ({}, "messages"),
        ([], "messages"),
        ([123], "messages[0]"),
        ([None], "messages[0]"),
        ([{}], "messages[0].role"),
        ([USER, {"role": 123, "content": "x"}], "messages[1].role"),
        ([{"role": "user", "content": 123}], "messages[0].content"),
        ([{"role": "user", "content": {"text": "x"}}], "messages[0].content"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "assistant"}], "messages[0].content"),
        ([{"role": "assistant", "tool_calls": []}], "messages[0].content"),
        ([{"role": "user", "content": [7]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "hologram"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([USER, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}], "messages[2]"),
        ([{"role": "assistant", "content": "", "tool_calls": {}}], "messages[0].tool_calls"),
        ([{"role": "assistant", "content": "", "tool_calls": [{}]}], "messages[0].tool_calls[0].function"),
        ([{"role": "user", "content": "x", "name": 5}], "messages[0].name"),
    ],
)
def test_what_is_refused_names_its_field(messages: Any, field: str) -> None:
    assert refused({"messages": messages}) == field


def test_messages_must_be_there() -> None:
    assert refused({}) == "messages"


def test_sloppy_histories_pass() -> None:
    calls = [
        {"id": None, "type": "function", "function": {"name": "f", "arguments": '{"a": '}},
        {"function": {"name": "g", "arguments": '{"a": 1}'}},
        {"id": "x", "function": {"name": "h", "arguments": None}},
        {"id": "y", "function": {"name": "i", "arguments": "[1]"}},
    ]
    conversation = parse_messages(
        {
            "messages": [
                {"role": "system", "content": None},
                {"role": "assistant", "content": None, "tool_calls": calls, "refusal": None, "audio": None},
                {"role": "tool", "content": "an answer to nobody"},
                {"role": "tool", "tool_call_id": "unheard of", "content": [{"type": "text", "text": "t"}]},
                {"role": "function", "name": "old", "content": "way"},
                {"role": "user", "content": "go on"},
            ]
        }
    )
    arguments = [call["function"]["arguments"] for call in conversation.messages[1]["tool_calls"]]
    assert arguments == ['{"a": ', '{"a": 1}', {}, "[1]"]
    assert all(isinstance(call["id"], str) for call in conversation.messages[1]["tool_calls"])
    assert conversation.messages[0]["content"] is None
    assert len(conversation.messages) == 6


def test_what_other_servers_and_older_clients_call_things() -> None:
    said = [
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "assistant", "refusal": "never"},
        {"role": "assistant", "content": "yes", "reasoning": "why not", "refusal": None},
        {"role": "assistant", "content": None, "thinking": "hm", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "done"},
        {"role": "assistant", "content": "so", "reasoning": {"effort": "no text"}, "reasoning_content": "thus"},
        USER,
    ]
    messages = parse_messages({"messages": said}).messages
    assert [message["content"] for message in messages] == ["no", "never", "yes", None, "done", "so", "hi"]
    thoughts = [message.get("reasoning_content") for message in messages]
    assert thoughts == [None, None, "why not", "hm", None, "thus", None]
    assert messages[3]["tool_calls"] == [{"type": "function", "id": "", "function": {"name": "f", "arguments": "{}"}}]


def test_parts_are_kept_for_the_template() -> None:
    parts = [{"type": "text", "text": "a", "cache_control": {}}, {"type": "input_text", "text": "b"}, "c"]
    message = parse_messages({"messages": [{"role": "user", "content": parts}]}).messages[0]
    assert message["content"] == [{"type": "text", "text": text} for text in "abc"]


def test_a_trailing_assistant_message_is_continued() -> None:
    answer = {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    conversation = parse_messages({"messages": [USER, answer]})
    assert (conversation.continues, conversation.add_generation_prompt) == (True, True)
    assert conversation.messages == (USER, {"role": "assistant", "content": "a\n\nb"})
    asked = {"messages": [USER, answer], "continue_final_message": True, "add_generation_prompt": False}
    assert parse_messages(asked) == conversation


def test_tool_calls_are_not_continued() -> None:
    calls = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    assert parse_messages({"messages": [USER, calls]}).continues is False
    assert refused({"messages": [USER, calls], "continue_final_message": True}) == "continue_final_message"


def test_what_is_to_be_continued() -> None:
    answer = {"role": "assistant", "content": "a"}
    both = {"messages": [USER, answer], "continue_final_message": True, "add_generation_prompt": True}
    assert refused(both) == "continue_final_message"
    assert refused({"messages": [USER], "continue_final_message": True}) == "continue_final_message"
    assert refused({"messages": [USER], "continue_final_message": "yes"}) == "continue_final_message"
    assert refused({"messages": [USER], "add_generation_prompt": 1}) == "add_generation_prompt"
    closed = parse_messages({"messages": [USER], "add_generation_prompt": False})
    assert (closed.continues, closed.add_generation_prompt) == (False, False)
    finished = parse_messages({"messages": [USER, answer], "continue_final_message": False})
    assert (finished.continues, finished.messages[-1]) == (False, answer)


def test_tools() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    assert parse_messages({"messages": [USER], "tools": [tool]}).tools == (tool,)
    for body in ({"tools": None}, {"tools": []}, {"tools": [tool], "tool_choice": "none"}):
        assert parse_messages({"messages": [USER], **body}).tools is None
    assert refused({"messages": [USER], "tools": {}}) == "tools"
    assert refused({"messages": [USER], "tools": [tool, {}]}) == "tools[1].function"
    assert refused({"messages": [USER], "tool_choice": "maybe"}) == "tool_choice"


def test_template_kwargs() -> None:
    body = {"messages": [USER], "chat_template_kwargs": {"enable_thinking": False}}
    assert parse_messages(body).template_kwargs == {"enable_thinking": False}
    assert refused({"messages": [USER], "chat_template_kwargs": {"messages": []}}) == "chat_template_kwargs"
    assert refused({"messages": [USER], "chat_template_kwargs": 1}) == "chat_template_kwargs"


@given(JSON)
def test_anything_is_normal_or_refused(value: Any) -> None:
    before = json.dumps(value)
    try:
        conversation = parse_messages({"messages": value})
    except InvalidRequest as error:
        field, conversation = error.field, None
    assert json.dumps(value) == before
    if conversation is None:
        assert str(field).startswith("messages")
        return
    for message in conversation.messages:
        assert isinstance(message["role"], str)
        assert message["content"] is None or isinstance(message["content"], str | list)
