"""Bodies as agents and their libraries write them: fields that are null, empty, or of another server.

OpenAI answers what is harmless, and refuses by name what would not do as it says.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from llamabox.server.hosted.config import ModelConfig
from tests.server.fake_client import INFO, FakeTextClient, saying
from tests.server.harness import running

USER = {"role": "user", "content": "What is the weather in Paris?"}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def function(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "get_weather", **fields}}


def after(**fields: Any) -> list[dict[str, Any]]:
    """A history in which the tool was called, with further fields of the call's message."""
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "Rain."}
    return [USER, {"role": "assistant", "tool_calls": [call], **fields}, result]


def called(**fields: Any) -> list[dict[str, Any]]:
    """The same with other fields of the call."""
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}, **fields}
    return after(content=None, tool_calls=[call])


def answered(**fields: Any) -> list[dict[str, Any]]:
    """The same with other fields of the tool's message."""
    history = after(content=None)
    return [*history[:2], {**history[2], **fields}]


WEATHER = function(description="The weather.", parameters=CITY)

ANSWERED: dict[str, dict[str, Any]] = {
    # tools that say little, or say it with nulls: Go, C# and pydantic write what is left out
    "a tool of nothing but its name": {"tools": [function()]},
    "nulls in a tool": {"tools": [function(description=None, parameters=None, strict=None)]},
    "nulls in a schema": {
        "tools": [
            function(
                parameters={
                    "type": "object",
                    "properties": {"city": {"type": "string", "description": None, "enum": None, "default": None}},
                    "required": None,
                    "additionalProperties": None,
                    "$defs": None,
                }
            )
        ]
    },
    "null properties": {"tools": [function(parameters={"type": "object", "properties": None, "required": None})]},
    "empty parameters": {"tools": [function(description="", parameters={})]},
    "a schema with its version": {
        "tools": [function(parameters={**CITY, "$schema": "http://json-schema.org/draft-07/schema#"})]
    },
    "strict": {"tools": [function(parameters={**CITY, "additionalProperties": False}, strict=True)]},
    "a tool without a type": {"tools": [{"function": {"name": "get_weather"}}]},
    "fields of other servers in a tool": {"tools": [{**WEATHER, "cache_control": {"type": "ephemeral"}}]},
    # how tools are chosen
    "no tools": {"tools": []},
    "no tools, and how to choose": {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
    "null everywhere": {"tools": None, "tool_choice": None, "parallel_tool_calls": None, "functions": None},
    "tools without a choice": {"tools": [WEATHER], "tool_choice": None, "parallel_tool_calls": None},
    "none of the tools": {"tools": [WEATHER], "tool_choice": "none"},
    "older words": {"functions": [WEATHER["function"]], "function_call": "auto"},
    # histories
    "a call without content": {"messages": after()},
    "a call with null content": {"messages": after(content=None), "tools": [WEATHER]},
    "a call with empty content": {"messages": after(content=""), "tools": [WEATHER]},
    "a call with no parts": {"messages": after(content=[]), "tools": [WEATHER]},
    "all that a reply has": {
        "messages": after(
            content=None, refusal=None, annotations=[], audio=None, function_call=None, reasoning_content=None
        )
    },
    "thoughts that come back": {
        "messages": after(content=None, reasoning_content="Hm.", reasoning="Hm.", reasoning_details=[{"type": "x"}])
    },
    "a call with its index": {"messages": called(index=0)},
    "a call without id and type": {"messages": called(id=None, type=None)},
    "arguments that are an object": {
        "messages": called(function={"name": "get_weather", "arguments": {"city": "Paris"}})
    },
    "arguments that are missing": {"messages": called(function={"name": "get_weather"})},
    "arguments that were cut off": {"messages": called(function={"name": "get_weather", "arguments": '{"city": "Pa'})},
    "a result with a name": {"messages": answered(name="get_weather")},
    "a result in parts": {"messages": answered(content=[{"type": "text", "text": "Rain."}])},
    "a result that is empty": {"messages": answered(content="")},
    "a result that is null": {"messages": answered(content=None)},
    "a result without an id": {"messages": answered(tool_call_id=None)},
    "a result of no parts": {"messages": answered(content=[])},
    "no calls": {"messages": [USER, {"role": "assistant", "content": "Hi", "tool_calls": []}, USER]},
    "null calls": {"messages": [USER, {"role": "assistant", "content": "Hi", "tool_calls": None}, USER]},
    "silence of the assistant": {"messages": [USER, {"role": "assistant", "content": None}, USER]},
    "names": {"messages": [{"role": "system", "content": "Be brief.", "name": "rules"}, {**USER, "name": "Ada"}]},
    "a developer": {"messages": [{"role": "developer", "content": "Be brief."}, USER]},
    "parts with marks of a cache": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}
        ]
    },
    "an empty system": {"messages": [{"role": "system", "content": ""}, USER]},
    "users side by side": {"messages": [USER, USER]},
    # the rest of the body
    "nulls": dict.fromkeys(
        (
            *(
                "audio",
                "frequency_penalty",
                "logit_bias",
                "logprobs",
                "max_completion_tokens",
                "max_tokens",
                "metadata",
            ),
            *("modalities", "n", "prediction", "presence_penalty", "reasoning_effort", "response_format", "seed"),
            *("service_tier", "stop", "store", "stream", "stream_options", "temperature", "top_logprobs", "top_p"),
            *("metadata", "user", "verbosity", "web_search_options", "chat_template_kwargs", "grammar", "json_schema"),
        )
    ),
    "values that ask for nothing": {
        "logit_bias": {},
        "logprobs": False,
        "metadata": {"session": "1"},
        "modalities": ["text"],
        "response_format": {"type": "text"},
        "service_tier": "auto",
        "stop": [],
        "store": False,
        "top_logprobs": 0,
        "user": "",
    },
    "keys of caches": {"prompt_cache_key": "a", "prompt_cache_retention": "24h", "safety_identifier": "b"},
    "no limit, as LM Studio says it": {"max_tokens": -1},
    "both limits": {"max_tokens": 8, "max_completion_tokens": 8},
    "options of a stream": {"stream_options": {"include_usage": True, "include_obfuscation": False}},
    "fields of OpenRouter": {"provider": {"order": []}, "usage": {"include": True}, "transforms": [], "route": None},
    "fields of Ollama": {"keep_alive": "5m", "options": {"num_ctx": 4096}},
    "fields of vLLM": {"repetition_penalty": 1.0, "guided_json": None, "skip_special_tokens": True},
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a word of Mistral's": ({"tools": [WEATHER], "tool_choice": "any"}, "tool_choice"),
    "a word of Anthropic's": ({"tools": [WEATHER], "tool_choice": {"type": "any"}}, "tool_choice.type"),
    "a tool's name alone": ({"tools": [WEATHER], "tool_choice": "get_weather"}, "tool_choice"),
    "the choice of the responses API": (
        {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}},
        "tool_choice.function",
    ),
    "a tool of the responses API": ({"tools": [{"type": "function", "name": "get_weather"}]}, "tools[0].function"),
    "a tool of Anthropic's": ({"tools": [{"name": "get_weather", "input_schema": CITY}]}, "tools[0].function"),
    "one tool, not in an array": ({"tools": WEATHER}, "tools"),
    "required, of none": ({"tools": [], "tool_choice": "required"}, "tool_choice"),
    "parameters that are an array": ({"tools": [function(parameters=[])]}, "tools[0].function.parameters"),
    "parameters that are a text": ({"tools": [function(parameters="{}")]}, "tools[0].function.parameters"),
    "properties that are an array": (
        {"tools": [function(parameters={"type": "object", "properties": []})]},
        "tools[0].function.parameters.properties",
    ),
    "required that is a word": (
        {"tools": [function(parameters={**CITY, "required": "city"})]},
        "tools[0].function.parameters.required",
    ),
    "required that is true": (
        {"tools": [function(parameters={**CITY, "required": True})]},
        "tools[0].function.parameters.required",
    ),
    "a description that is no text": ({"tools": [function(description=["a"])]}, "tools[0].function.description"),
    "a name that is null": ({"tools": [{"type": "function", "function": {"name": None}}]}, "tools[0].function"),
    "a name that is empty": ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
    "text as a number": ({"parallel_tool_calls": "false", "tools": [WEATHER]}, "parallel_tool_calls"),
    "a grammar beside tools": ({"tools": [WEATHER], "grammar": 'root ::= "a"'}, "grammar"),
    "a grammar by another name beside tools": (
        {"tools": [WEATHER], "response_format": {"type": "grammar", "grammar": 'root ::= "a"'}},
        "response_format",
    ),
    "parts of Anthropic's": (
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "Rain."}]}]},
        "messages[0].content[0].type",
    ),
    "a call that is a text": ({"messages": after(tool_calls="get_weather")}, "messages[1].tool_calls"),
}


async def statuses(bodies: dict[str, dict[str, Any]]) -> dict[str, tuple[int, dict[str, Any]]]:
    client = FakeTextClient(saying("Rain."), info=replace(INFO, n_ctx=1 << 14))
    found = {}
    async with running(client, ModelConfig(chat_template="chatml"), within=60) as server:
        for name, body in bodies.items():
            reply = await server.http.post("/v1/chat/completions", json={"model": "m", "messages": [USER], **body})
            found[name] = reply.status_code, reply.json()
    return found


def test_what_is_harmless_is_answered() -> None:
    found = asyncio.run(statuses(ANSWERED))
    assert {name: reply for name, (status, reply) in found.items() if status != 200} == {}


def test_what_is_meant_for_another_server_is_refused_by_name() -> None:
    found = asyncio.run(statuses({name: body for name, (body, _) in REFUSED.items()}))
    assert {name: reply for name, (status, reply) in found.items() if status != 400} == {}
    told = {name: reply["error"]["message"] for name, (_, reply) in found.items()}
    assert {name: told[name] for name, (_, field) in REFUSED.items() if field not in told[name]} == {}


@pytest.mark.parametrize("n_levels", [100, 400])
def test_a_schema_however_deep_is_answered_or_refused(n_levels: int) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(n_levels):
        schema = {"type": "array", "items": schema}
    body = {"tools": [function(parameters={"type": "object", "properties": {"a": schema}})]}
    [(status, reply)] = asyncio.run(statuses({"deep": body})).values()
    assert status == 200 or (status == 400 and "nested too deep" in reply["error"]["message"]), reply


REFUSING = "{% if messages[0].content == 'no' %}{{ raise_exception('not so') }}{% endif %}{{ messages[0].content }}"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_wrong_field_is_told_before_what_the_template_refuses(path: str) -> None:
    """The fields are read while the template renders. Whatever comes of either, the next chat is answered."""

    async def scene() -> None:
        async with running(FakeTextClient(saying("yes")), ModelConfig(chat_template=REFUSING)) as server:

            async def told(content: str, **fields: Any) -> tuple[int, str]:
                body = {"messages": [{"role": "user", "content": content}], "max_tokens": 9, **fields}
                reply = await server.http.post(path, json=body)
                return reply.status_code, reply.text

            for _ in range(3):  # the process starts with the first one
                status, text = await told("no", temperature="hot")
                assert (status, "temperature" in text, "not so" in text) == (400, True, False)
                status, text = await told("no")
                assert (status, "not so" in text) == (400, True)
                assert (await told("yes"))[0] == 200

    asyncio.run(scene())
