"""Calls of tools and thoughts through the unmodified openai client.

The demo model is too small to call by itself. Where it must call, the grammar makes it; where an answer's text matters,
a grammar of the server's makes the model say it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.chat.templates import HERMES
from tests.e2e.server_process import ServerProcess

USER = {"role": "user", "content": "What is the weather in Paris?"}


def tool(name: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": f"The {name}.", "parameters": parameters}}


WEATHER = tool("get_weather", {"city": {"type": "string"}, "days": {"type": "integer"}}, ["city"])
TIME = tool("get_time", {"zone": {"enum": ["CET", "UTC"]}}, ["zone"])
TOOLS = [WEATHER, TIME]


@pytest.fixture(scope="module")
def client(serve: Callable[..., ServerProcess]) -> Iterator[openai.OpenAI]:
    yield from clients(serve("-c", "8192", "-np", "4"))


@pytest.fixture(scope="module")
def scripted(serve: Callable[..., ServerProcess]) -> Callable[..., openai.OpenAI]:
    """A client of a server that says one text, under a template."""

    def start(text: str, template: str) -> openai.OpenAI:
        server = serve(
            "-c", "4096", "-np", "2", "--grammar", f"root ::= {json.dumps(text)}", "--chat-template", template
        )
        return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)

    return start


def clients(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, **asked: Any) -> Any:
    """A plain reply, which the streamed one must equal."""
    asked = {"model": "m", "messages": [USER], "tools": TOOLS, "max_tokens": 128, "temperature": 0, **asked}
    plain = client.chat.completions.create(**asked).choices[0]
    with client.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0] if plain.finish_reason != "length" else None
    if streamed is not None:
        assert streamed.finish_reason == plain.finish_reason
        assert (streamed.message.content or "") == (plain.message.content or "")
        assert told(streamed.message) == told(plain.message)
    return plain


def told(message: Any) -> list[tuple[str, str]]:
    return [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]


def test_a_call_that_is_required(client: openai.OpenAI) -> None:
    choice = ask(client, tool_choice="required", parallel_tool_calls=False)
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    [(name, arguments)] = told(choice.message)
    assert name in ("get_weather", "get_time")
    assert isinstance(json.loads(arguments), dict)
    assert len({call.id for call in choice.message.tool_calls}) == 1


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "function": {"name": "get_time"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "get_time"}}],
            },
        },
    ],
    ids=["named", "allowed"],
)
def test_the_tool_that_is_chosen(client: openai.OpenAI, choice: dict[str, Any]) -> None:
    found = ask(client, tool_choice=choice, parallel_tool_calls=False)
    [(name, arguments)] = told(found.message)
    assert name == "get_time"
    assert json.loads(arguments)["zone"] in ("CET", "UTC")


def test_a_conversation_of_two_turns(client: openai.OpenAI) -> None:
    first = ask(client, tool_choice="required", parallel_tool_calls=False)
    call = first.message.tool_calls[0]
    messages = [
        USER,
        first.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "It rains."},
    ]
    second = ask(client, messages=messages, tool_choice="none", max_tokens=24)
    assert second.message.tool_calls is None
    assert second.message.content


def test_the_prompt_of_the_next_turn_begins_with_what_was_said(client: openai.OpenAI) -> None:
    """What a model called is rendered to what it wrote, so that its cells are there already."""
    first = client.chat.completions.create(
        model="m",
        messages=[USER],
        tools=TOOLS,
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=128,
        temperature=0,
    )
    message = first.choices[0].message
    messages = [
        USER,
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "It rains."},
    ]
    second = client.chat.completions.create(model="m", messages=messages, tools=TOOLS, tool_choice="auto", max_tokens=1)
    said = first.usage.prompt_tokens + first.usage.completion_tokens
    assert second.usage.prompt_tokens_details.cached_tokens >= said - 3


def test_a_seed_makes_the_same_calls_again(client: openai.OpenAI) -> None:
    """And as a stream; another seed makes others."""
    note = tool("note", {"text": {"type": "string", "maxLength": 24}}, ["text"])
    asked: dict[str, Any] = {"tools": [note], "tool_choice": "required", "parallel_tool_calls": False, "temperature": 1}
    found = {str(told(ask(client, **asked, seed=seed).message)) for seed in (1, 2, 3, 1)}
    assert len(found) == 3


@pytest.mark.parametrize("name", ["mcp__files-1__read.file", "ns:tool/sub", "x" * 128, "9"])
def test_names_of_tools(client: openai.OpenAI, name: str) -> None:
    """Longer ones than OpenAI's, and with dots, colons and strokes: they are called, and stand in the history."""
    tools = [tool(name, {"zone": {"enum": ["CET", "UTC"]}}, ["zone"]), *TOOLS]
    choice = {"type": "function", "function": {"name": name}}
    first = ask(client, tools=tools, tool_choice=choice, parallel_tool_calls=False)
    [(called, arguments)] = told(first.message)
    assert called == name
    assert json.loads(arguments)["zone"] in ("CET", "UTC")
    call = first.message.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "name": name, "content": "Noon."}
    messages = [USER, first.message.model_dump(exclude_none=True), result]
    assert ask(client, messages=messages, tools=tools, tool_choice="none", max_tokens=4).message.tool_calls is None


def test_the_old_words(client: openai.OpenAI) -> None:
    function = TIME["function"]
    asked = {"model": "m", "messages": [USER], "functions": [function], "function_call": {"name": "get_time"}}
    choice = client.chat.completions.create(**asked, max_tokens=64, temperature=0).choices[0]
    assert choice.finish_reason == "function_call"
    assert choice.message.function_call.name == "get_time"
    assert json.loads(choice.message.function_call.arguments)["zone"] in ("CET", "UTC")
    chunks = list(client.chat.completions.create(**asked, max_tokens=64, temperature=0, stream=True))
    told = [chunk.choices[0].delta.function_call for chunk in chunks if chunk.choices]
    assert "".join(one.arguments or "" for one in told if one) == choice.message.function_call.arguments


def custom(name: str, syntax: str = "", definition: str = "") -> dict[str, Any]:
    given: dict[str, Any] = {"type": "text"}
    if syntax:
        given = {"type": "grammar", "grammar": {"syntax": syntax, "definition": definition}}
    return {"type": "custom", "custom": {"name": name, "description": f"The {name}.", "format": given}}


LINES = custom("lines", "lark", 'start: line ~ 2..3\nline: ("+" | "-") WORD "\\n"\nWORD: /[a-z"]{1,6}/')
CODE = custom("code", "regex", r'"[a-f]{2,6}"\n[\d\\]')


@pytest.mark.parametrize(
    ("tool", "fits"), [(LINES, r'([+-][a-z"]{1,6}\n){2,3}'), (CODE, r'"[a-f]{2,6}"\n[\d\\]')], ids=["lark", "regex"]
)
def test_the_input_of_a_custom_tool_fits_its_grammar(client: openai.OpenAI, tool: dict[str, Any], fits: str) -> None:
    name = tool["custom"]["name"]
    named = {"type": "custom", "custom": {"name": name}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    for choice in (named, allowed):
        asked: dict[str, Any] = {"model": "m", "messages": [USER], "tools": [WEATHER, tool], "tool_choice": choice}
        asked |= {"parallel_tool_calls": False, "max_tokens": 96, "temperature": 0}
        plain = client.chat.completions.create(**asked).choices[0]
        [call] = plain.message.tool_calls
        assert (plain.finish_reason, call.type, call.custom.name) == ("tool_calls", "custom", name)
        assert re.fullmatch(fits, call.custom.input)
        chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True) if chunk.choices]
        deltas = [delta.to_dict() for chunk in chunks for delta in chunk.delta.tool_calls or ()]
        assert [delta["type"] for delta in deltas if "type" in delta] == ["custom"]
        assert "".join(delta["custom"].get("name", "") for delta in deltas) == name
        assert "".join(delta["custom"].get("input", "") for delta in deltas) == call.custom.input
    messages = [USER, plain.message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "Done."}]
    again = client.chat.completions.create(**{**asked, "messages": messages, "tool_choice": "none", "max_tokens": 1})
    assert again.usage.prompt_tokens > len(call.custom.input) / 8


TAGGED = {
    "type": "structural_tag",
    "format": {
        "type": "sequence",
        "elements": [
            {
                "type": "tag",
                "begin": "<n>",
                "content": {"type": "json_schema", "json_schema": {"enum": [7, 8]}},
                "end": "</n>",
            },
            {"type": "regex", "pattern": "[a-c]{3}/"},
        ],
    },
}


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        ({"response_format": {"type": "regex", "pattern": r'[a-f]{2,6}"\n\d/'}}, r'[a-f]{2,6}"\n\d/'),
        ({"response_format": TAGGED}, r"<n>[78]</n>[a-c]{3}/"),
        ({"extra_body": {"structured_outputs": {"regex": "[xy]{3}"}}}, "[xy]{3}"),
        ({"extra_body": {"structured_outputs": {"choice": ["red\n", "gr?en"]}}}, r"red\n|gr\?en"),
        ({"extra_body": {"guided_regex": "[xy]{3}"}}, "[xy]{3}"),
    ],
)
def test_a_text_of_a_form(client: openai.OpenAI, asked: dict[str, Any], fits: str) -> None:
    """Alone, and beside tools that need not be called."""
    for more in ({}, {"tools": TOOLS}):
        found = client.chat.completions.create(
            model="m", messages=[USER], max_tokens=48, temperature=0, **asked, **more
        ).choices[0]
        if found.finish_reason == "stop":
            assert re.fullmatch(fits, found.message.content or "")
        else:
            assert more
            assert found.finish_reason in ("tool_calls", "length")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"response_format": {"type": "regex", "pattern": "(?=a)b"}}, "response_format.pattern"),
        ({"response_format": {"type": "regex"}}, "response_format.pattern"),
        ({"response_format": {"type": "structural_tag", "format": {"type": "lottery"}}}, "response_format.format.type"),
        (
            {"response_format": {"type": "structural_tag", "format": {"type": "regex", "pattern": "(a"}}},
            "response_format.format.pattern",
        ),
        ({"extra_body": {"structured_outputs": {"grammar": "x"}}}, "structured_outputs.grammar"),
        ({"extra_body": {"structured_outputs": {"regex": "a", "choice": ["b"]}}}, "structured_outputs"),
        ({"extra_body": {"guided_regex": "a"}, "response_format": {"type": "json_object"}}, "guided_regex"),
    ],
)
def test_a_form_that_cannot_be_kept_is_refused_by_name(
    client: openai.OpenAI, asked: dict[str, Any], field: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{"model": "m", "messages": [USER], "max_tokens": 8, **asked})
    assert f"'{field}'" in refused.value.message


def test_a_custom_tool_takes_any_text(client: openai.OpenAI) -> None:
    asked = {"tools": [custom("say")], "tool_choice": "required", "parallel_tool_calls": False}
    choice = client.chat.completions.create(model="m", messages=[USER], max_tokens=256, temperature=0, **asked).choices[
        0
    ]
    [call] = choice.message.tool_calls
    assert call.type == "custom"
    assert call.custom.input


def test_a_call_that_is_cut_off_says_so(client: openai.OpenAI) -> None:
    choice = ask(client, tool_choice="required", max_tokens=14)
    assert choice.finish_reason == "length"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name"),
        ({"tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool_choice.function.name"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [tool("a b", {}, [])]}, "tools[0].function.name"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"extra_body": {"grammar": 'root ::= "a"'}}, "grammar"),
        ({"tools": [WEATHER, custom("get_weather")]}, "tools[1].custom.name"),
        ({"tools": [custom("c", "latin", "a")]}, "tools[0].custom.format.grammar.syntax"),
        ({"tools": [custom("c", "regex", " ")]}, "tools[0].custom.format.grammar.definition"),
        ({"tools": [WEATHER, custom("fault", "lark", "start: nobody")]}, "'fault'"),
        ({"tools": [WEATHER, custom("fault", "regex", "(?=a)b")]}, "'fault'"),
        ({"tools": [custom("fine", "regex", "a"), custom("fault", "lark", "start: %json {}")]}, "'fault'"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "nobody"}}}, "tool_choice.custom.name"),
    ],
)
def test_what_cannot_be_called_is_refused_by_name(client: openai.OpenAI, asked: dict[str, Any], field: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{"model": "m", "messages": [USER], "tools": TOOLS, "max_tokens": 8, **asked})
    assert field in refused.value.message


def test_a_schema_that_is_not_kept_to_the_letter_is_told_or_refused(client: openai.OpenAI) -> None:
    mail = tool("mail", {"to": {"type": "string", "pattern": "^(?!x).*$"}}, ["to"])
    asked: dict[str, Any] = {"model": "m", "messages": [USER], "max_tokens": 8}
    reply = client.chat.completions.with_raw_response.create(**asked, tools=[WEATHER, mail])
    assert "tool mail" in reply.headers["warning"]
    mail["function"]["strict"] = True
    with pytest.raises(openai.BadRequestError, match="strict"):
        client.chat.completions.create(**asked, tools=[WEATHER, mail])


THOUGHT = "<think>\nIt is two and two.\n</think>\n\nFour."
CALL = 'I look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def test_thoughts_are_told_apart(scripted: Callable[..., openai.OpenAI]) -> None:
    client = scripted(THOUGHT, HERMES)
    plain = client.chat.completions.create(model="m", messages=[USER], max_tokens=64)
    message = plain.choices[0].message
    assert (message.content, message.reasoning_content) == ("Four.", "It is two and two.")
    assert 0 < plain.usage.completion_tokens_details.reasoning_tokens < plain.usage.completion_tokens
    deltas = [
        chunk.choices[0].delta
        for chunk in client.chat.completions.create(model="m", messages=[USER], max_tokens=64, stream=True)
        if chunk.choices
    ]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == message.reasoning_content
    assert "".join(delta.content or "" for delta in deltas) == "Four."
    whole = client.chat.completions.create(
        model="m", messages=[USER], max_tokens=64, extra_body={"reasoning_format": "none"}
    )
    assert whole.choices[0].message.content == THOUGHT


def test_text_and_a_call_in_the_models_own_form(scripted: Callable[..., openai.OpenAI]) -> None:
    choice = ask(scripted(CALL, HERMES), tools=[WEATHER])
    assert choice.message.content == "I look."
    assert told(choice.message) == [("get_weather", '{"city": "Paris"}')]
    assert choice.finish_reason == "tool_calls"


kinds = st.sampled_from(
    [{"type": "string", "maxLength": 8}, {"type": "integer"}, {"type": "boolean"}, {"enum": ["a", "b"]}]
)
schemas = st.dictionaries(st.text(alphabet="abc_", min_size=1, max_size=6), kinds, min_size=1, max_size=4)


@given(st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_required_calls_fit_random_schemas(client: openai.OpenAI, data: st.DataObject) -> None:
    tools = []
    for i in range(data.draw(st.integers(1, 3))):
        properties = data.draw(schemas)
        required = data.draw(st.lists(st.sampled_from(sorted(properties)), unique=True))
        tools.append(tool(f"tool_{i}", properties, required))
    reply = client.chat.completions.create(
        model="m",
        messages=[USER],
        tools=tools,
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=300,
        temperature=data.draw(st.sampled_from([0.0, 1.0])),
        seed=data.draw(st.integers(0, 1000)),
    )
    choice = reply.choices[0]
    if choice.finish_reason == "length":
        return
    [(name, arguments)] = told(choice.message)
    [schema] = [one["function"]["parameters"] for one in tools if one["function"]["name"] == name]
    jsonschema.validate(json.loads(arguments), schema)
