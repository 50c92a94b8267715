"""LangChain's ChatOpenAI: tools by bind_tools, an agent, and a value of a class by each of its methods."""

from __future__ import annotations

from enum import Enum
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from report import BOTH, FREE, INTRODUCTION, KEY, MODEL, ONE, REPORT, SCRIPTED, THINK, equal, run


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return "Rain."


@tool
def get_time(zone: str) -> str:
    """The time in a zone."""
    return "Noon."


class Zone(Enum):
    CET = "CET"
    UTC = "UTC"


class GetTime(BaseModel):
    """The time in a zone."""

    zone: Zone


def model(url: str, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=f"{url}/v1", api_key=KEY, model=MODEL, max_retries=0, temperature=0, **more)


def conversation(*, streaming: bool) -> None:
    bound = model(SCRIPTED, streaming=streaming).bind_tools([get_weather, get_time])
    messages: list[Any] = [HumanMessage(BOTH)]
    first = bound.invoke(messages)
    equal([call["name"] for call in first.tool_calls], ["get_weather", "get_time"])
    equal([call["args"] for call in first.tool_calls], [{"city": "Paris"}, {"zone": "CET"}])
    equal(first.invalid_tool_calls, [])
    equal(first.response_metadata["finish_reason"], "tool_calls")
    assert first.usage_metadata is not None
    assert first.usage_metadata["output_tokens"] > 10
    messages += [first, *(ToolMessage("Rain.", tool_call_id=call["id"]) for call in first.tool_calls)]
    second = bound.invoke(messages)
    equal((second.content, second.tool_calls), (REPORT, []))


def two_turns_plain() -> None:
    conversation(streaming=False)


def two_turns_streamed() -> None:
    conversation(streaming=True)


def chunks_add_up() -> None:
    chunks = list(model(SCRIPTED, stream_usage=True).bind_tools([get_weather]).stream([HumanMessage(ONE)]))
    whole: Any = sum(chunks[1:], chunks[0])
    assert isinstance(whole, AIMessageChunk)
    equal((whole.content, [call["args"] for call in whole.tool_calls]), (INTRODUCTION, [{"city": "Paris"}]))
    assert whole.usage_metadata is not None


def an_agent() -> None:
    agent = create_agent(model(SCRIPTED), tools=[get_weather, get_time])
    found = agent.invoke({"messages": [{"role": "user", "content": ONE}]})["messages"]
    equal([type(one).__name__ for one in found], ["HumanMessage", "AIMessage", "ToolMessage", "AIMessage"])
    equal(found[-1].content, REPORT)


async def an_agent_that_streams() -> None:
    agent = create_agent(model(SCRIPTED, streaming=True), tools=[get_weather, get_time])
    text = ""
    async for part, _ in agent.astream({"messages": [{"role": "user", "content": ONE}]}, stream_mode="messages"):
        text = text + str(part.content) if isinstance(part, AIMessageChunk) else ""
    equal(text, REPORT)


def thoughts_are_not_said() -> None:
    equal(model(SCRIPTED).invoke(THINK).content, "Four.")


def structured(method: str, **more: Any) -> None:
    asked = model(FREE, max_tokens=200).with_structured_output(GetTime, method=method, include_raw=True, **more)
    found: Any = asked.invoke("What time is it?")
    equal(found["parsing_error"], None)
    assert found["parsed"].zone in Zone


def structured_by_json_schema() -> None:
    structured("json_schema")


def structured_by_strict_json_schema() -> None:
    structured("json_schema", strict=True)


def structured_by_a_function() -> None:
    structured("function_calling")


def structured_by_a_strict_function() -> None:
    structured("function_calling", strict=True)


def structured_by_json_mode() -> None:
    """Any object: the model is too small to guess which one is meant."""
    asked = model(FREE, max_tokens=200).with_structured_output(None, method="json_mode", include_raw=True)
    found: Any = asked.invoke("Answer with the JSON of a time.")
    if found["raw"].response_metadata["finish_reason"] == "stop":
        assert isinstance(found["parsed"], dict)


def a_tool_that_is_chosen() -> None:
    for choice in ("get_time", "any", "required", True):
        bound = model(FREE, max_tokens=200).bind_tools(
            [GetTime], tool_choice="GetTime" if choice == "get_time" else choice
        )
        [call] = bound.invoke("What time is it?").tool_calls
        assert call["args"]["zone"] in ("CET", "UTC")


if __name__ == "__main__":
    run(
        two_turns_plain,
        two_turns_streamed,
        chunks_add_up,
        an_agent,
        an_agent_that_streams,
        thoughts_are_not_said,
        structured_by_json_schema,
        structured_by_strict_json_schema,
        structured_by_a_function,
        structured_by_a_strict_function,
        structured_by_json_mode,
        a_tool_that_is_chosen,
    )
