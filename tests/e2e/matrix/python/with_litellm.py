"""LiteLLM: completion, streamed and plain, with tools, and a value of a class."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

import litellm
from pydantic import BaseModel
from report import BOTH, FREE, INTRODUCTION, KEY, MODEL, ONE, REPORT, SCRIPTED, THINK, equal, run

litellm.telemetry = False
litellm.suppress_debug_info = True


def tool(name: str, argument: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}}


TOOLS = [tool("get_weather", "city"), tool("get_time", "zone")]


class Zone(Enum):
    CET = "CET"
    UTC = "UTC"


class GetTime(BaseModel):
    """The time in a zone."""

    zone: Zone


def ask(provider: str, url: str, messages: list[Any], *, streaming: bool, **more: Any) -> Any:
    asked = {"model": f"{provider}/{MODEL}", "api_base": f"{url}/v1", "api_key": KEY, "num_retries": 0, **more}
    reply = litellm.completion(messages=messages, stream=streaming, temperature=0, **asked)
    if not streaming:
        return reply
    return litellm.stream_chunk_builder(list(reply), messages=messages)


def conversation(provider: str, *, streaming: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": BOTH}]
    options = {"stream_options": {"include_usage": True}} if streaming else {}
    first = ask(provider, SCRIPTED, messages, streaming=streaming, tools=TOOLS, **options)
    equal(first.choices[0].finish_reason, "tool_calls")
    message = first.choices[0].message
    told = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]
    equal(told, [("get_weather", {"city": "Paris"}), ("get_time", {"zone": "CET"})])
    assert first.usage.completion_tokens > 10
    results = [
        {"role": "tool", "tool_call_id": call.id, "name": "x", "content": "Rain."} for call in message.tool_calls
    ]
    second = ask(provider, SCRIPTED, [*messages, message, *results], streaming=streaming, tools=TOOLS)
    equal((second.choices[0].message.content, second.choices[0].finish_reason), (REPORT, "stop"))


def two_turns_plain() -> None:
    conversation("openai", streaming=False)


def two_turns_streamed() -> None:
    conversation("openai", streaming=True)


def two_turns_as_of_vllm() -> None:
    conversation("hosted_vllm", streaming=False)
    conversation("hosted_vllm", streaming=True)


def two_turns_as_of_lm_studio() -> None:
    conversation("lm_studio", streaming=True)


def text_before_a_call() -> None:
    for streaming in (False, True):
        message = (
            ask("openai", SCRIPTED, [{"role": "user", "content": ONE}], streaming=streaming, tools=TOOLS)
            .choices[0]
            .message
        )
        equal((message.content, len(message.tool_calls)), (INTRODUCTION, 1))


def thoughts() -> None:
    for streaming in (False, True):
        message = ask("openai", SCRIPTED, [{"role": "user", "content": THINK}], streaming=streaming).choices[0].message
        equal((message.content, message.reasoning_content), ("Four.", "Two and two."))


def a_value_of_a_class() -> None:
    messages = [{"role": "user", "content": "What time is it?"}]
    reply = ask("openai", FREE, messages, streaming=False, response_format=GetTime, max_tokens=64)
    assert GetTime.model_validate_json(reply.choices[0].message.content).zone in Zone


def a_tool_that_is_required() -> None:
    messages = [{"role": "user", "content": "What time is it?"}]
    reply = ask("openai", FREE, messages, streaming=False, tools=TOOLS[1:], tool_choice="required", max_tokens=200)
    equal(reply.choices[0].message.tool_calls[0].function.name, "get_time")


if __name__ == "__main__":
    run(
        two_turns_plain,
        two_turns_streamed,
        two_turns_as_of_vllm,
        two_turns_as_of_lm_studio,
        text_before_a_call,
        thoughts,
        a_value_of_a_class,
        a_tool_that_is_required,
    )
