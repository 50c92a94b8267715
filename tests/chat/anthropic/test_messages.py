"""Anthropic's messages become conversations: what each block says to the model, and which field is to blame."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from llamabox.chat.anthropic.messages import read_conversation
from llamabox.chat.anthropic.signatures import SHOWN, sign, signed
from llamabox.errors import InvalidRequest

PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
CALL = {"type": "tool_use", "id": "toolu_abcdefghi", "name": "look", "input": {"at": "x"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_abcdefghi"}
HEADER = "x-anthropic-billing-header: cc_version=2.1.207.{}; cch={};"


def read(*messages: tuple[str, Any], **fields: Any) -> list[dict[str, Any]]:
    return list(conversation(*messages, **fields).messages)


def conversation(*messages: tuple[str, Any], **fields: Any) -> Any:
    return read_conversation({"messages": [{"role": role, "content": text} for role, text in messages], **fields})


def texts(*said: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}} for text in said]


def test_texts_are_messages_and_those_of_one_role_in_a_row_are_one() -> None:
    assert read(("user", "a"), ("user", texts("b", "c")), ("assistant", "d"), ("user", "e"), system="s") == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": text} for text in "abc"]},
        {"role": "assistant", "content": "d"},
        {"role": "user", "content": "e"},
    ]


def test_a_system_message_stands_where_it_stood() -> None:
    found = read(("user", "a"), ("system", texts("b")), ("user", "c"))
    assert [(one["role"], one["content"]) for one in found] == [("user", "a"), ("system", "b"), ("user", "c")]


@pytest.mark.parametrize("join", ["block", "line"])
def test_the_billing_header_is_left_out(join: str) -> None:
    """It differs from request to request, and stands before everything else."""
    found = []
    for version, cch in (("a1b", "00000"), ("c3d", "fa690")):
        header = HEADER.format(version, cch)
        system = texts(header, "You are.") if join == "block" else f"{header}\nYou are."
        found.append(read(("user", "a"), system=system))
    assert found[0] == found[1]
    assert found[0][0] == {"role": "system", "content": "You are."}


def test_what_tools_answered_comes_before_what_the_user_says() -> None:
    results = [texts("Here:")[0], {**RESULT, "content": texts("1", "2")}, {**RESULT, "tool_use_id": "other"}]
    assert read(("user", "a"), ("assistant", [CALL, *texts("b")]), ("user", results)) == [
        {"role": "user", "content": "a"},
        {
            "role": "assistant",
            "content": "b",
            "tool_calls": [
                {"type": "function", "id": "abcdefghi", "function": {"name": "look", "arguments": {"at": "x"}}}
            ],
        },
        {
            "role": "tool",
            "tool_call_id": "abcdefghi",
            "name": "look",
            "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "2"}],
        },
        {"role": "tool", "tool_call_id": "other", "content": ""},
        {"role": "user", "content": "Here:"},
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [("no such file", "Error: no such file"), ("Error: no", "Error: no"), ("<tool_use_error>x", "<tool_use_error>x")],
)
def test_a_tool_that_failed_says_so(content: str, told: str) -> None:
    assert (
        read(("assistant", [CALL]), ("user", [{**RESULT, "content": content, "is_error": True}]))[1]["content"] == told
    )


def test_pictures_are_media_also_in_what_tools_answered() -> None:
    by_url = {"type": "image", "source": {"type": "url", "url": "https://a/b.png"}}
    found = conversation(
        ("user", [PICTURE, *texts("what?")]), ("assistant", [CALL]), ("user", [{**RESULT, "content": [by_url]}])
    )
    assert [(one.kind, one.field) for one in found.media] == [
        ("image", "messages[0].content[0].source.data"),
        ("image", "messages[2].content[0].content[0].source.url"),
    ]
    assert found.messages[0]["content"] == f"media{found.marker}n0ewhat?"
    assert found.messages[2]["content"] == f"media{found.marker}n1e"


def test_documents_and_search_results_are_text_between_tags() -> None:
    data = base64.b64encode("é".encode()).decode()
    documents = [
        {
            "type": "document",
            "title": "T",
            "context": "C",
            "source": {"type": "text", "media_type": "text/plain", "data": "d"},
        },
        {"type": "document", "source": {"type": "content", "content": texts("e", "f")}},
        {"type": "document", "source": {"type": "base64", "media_type": "text/markdown", "data": data}},
        {"type": "search_result", "title": "t", "source": "u", "content": texts("r"), "citations": {"enabled": True}},
    ]
    told = [part["text"] for part in read(("user", documents))[0]["content"]]
    assert told == [
        "<document>\n<source>T</source>\n<context>C</context>\n<document_content>\nd\n</document_content>\n</document>",
        "<document>\n<document_content>\ne\nf\n</document_content>\n</document>",
        "<document>\n<document_content>\né\n</document_content>\n</document>",
        "<search_result>\n<source>u</source>\n<title>t</title>\nr\n</search_result>",
    ]


def test_thoughts_come_back_from_their_text_or_from_their_signature() -> None:
    blocks = [
        {"type": "thinking", "thinking": "shown", "signature": SHOWN},
        {"type": "thinking", "thinking": "", "signature": sign("hidden 你好")},
        {"type": "thinking", "thinking": "", "signature": "EqQBCgIYAhIM"},
        {"type": "redacted_thinking", "data": "EqQBCgIYAhIM"},
        CALL,
    ]
    assert read(("user", "a"), ("assistant", blocks))[1]["reasoning_content"] == "shown\n\nhidden 你好"
    for forged in ("", "llamabox.", "llamabox.!!", "llamabox." + base64.b64encode(b"no zlib").decode()):
        assert signed(forged) == ""


def test_blocks_of_tools_that_run_elsewhere_say_nothing() -> None:
    blocks = [
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
        {"type": "mcp_tool_use", "id": "m", "name": "x", "input": {}, "server_name": "s"},
        {"type": "mcp_tool_result", "tool_use_id": "m", "content": "y"},
        *texts("a"),
    ]
    assert read(("user", "q"), ("assistant", blocks), ("user", "b"))[1] == {"role": "assistant", "content": "a"}


def test_a_last_message_of_the_assistant_s_is_continued_unless_it_calls() -> None:
    begun = conversation(("user", "a"), ("assistant", texts("The answer", " is (")))
    assert (begun.continues, begun.messages[-1]["content"]) == (True, "The answer is (")
    assert not conversation(("user", "a"), ("assistant", [CALL])).continues
    assert not conversation().continues


def test_tools_and_the_choice_among_them() -> None:
    schema = {"type": "object", "properties": {"at": {"type": "string"}}}
    tools = [
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        {
            "name": "look",
            "description": "Look.",
            "input_schema": schema,
            "input_examples": [{"at": "x"}],
            "strict": True,
        },
        {"type": "custom", "name": "stop", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}},
    ]
    found = conversation(("user", "a"), tools=tools)
    look = {
        "name": "look",
        "description": 'Look.\n\nExamples of its input:\n{"at":"x"}',
        "parameters": schema,
        "strict": True,
    }
    assert [tool["function"] for tool in found.tools] == [look, {"name": "stop", "parameters": {"type": "object"}}]
    assert found.tool_fields == ("tools[1]", "tools[2]")
    assert found.notes == ("the tool web_search (web_search_20250305) is run by Anthropic's servers alone",)
    for given, choice in (
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": "stop"}, {"type": "function", "function": {"name": "stop"}}),
    ):
        assert conversation(("user", "a"), tools=tools, tool_choice=given).tool_choice == choice
    assert conversation(("user", "a"), tools=tools, tool_choice={"type": "none"}).tools is None


IN_USER = "messages[0].content[0]"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": None}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": ["a"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "system", "content": [PICTURE]}]}, f"{IN_USER}.type"),
        ({"messages": [{"role": "assistant", "content": [RESULT]}]}, IN_USER),
        ({"messages": [{"role": "assistant", "content": [{**CALL, "input": "x"}]}]}, f"{IN_USER}.input"),
        ({"messages": [], "system": [{"type": "text"}]}, "system[0].text"),
        ({"messages": [], "tools": [{"name": "a"}]}, "tools[0].input_schema"),
        ({"messages": [], "tool_choice": {"type": "any"}}, "tool_choice"),
        ({"messages": [], "tool_choice": {"type": "tool", "name": "a"}}, "tool_choice.name"),
        ({"messages": [], "tool_choice": "auto"}, "tool_choice"),
        *(
            ({"messages": [{"role": "user", "content": [block]}]}, f"{IN_USER}.{field}")
            for block, field in (
                ({"type": "video"}, "type"),
                ({"type": "text"}, "text"),
                ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "source"),
                ({"type": "image", "source": {"type": "base64"}}, "source.data"),
                ({"type": "document", "source": {"type": "url", "url": "u"}}, "source"),
                (
                    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": ""}},
                    "source.media_type",
                ),
                ({"type": "container_upload", "file_id": "f"}, "type"),
                ({"type": "tool_result"}, "tool_use_id"),
                ({**RESULT, "is_error": 1}, "is_error"),
                ({**RESULT, "content": [{"type": "thinking"}]}, "content[0].type"),
            )
        ),
    ],
)
def test_what_is_wrong_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_conversation(body)
    assert refused.value.field == field
