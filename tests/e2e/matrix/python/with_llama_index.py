"""LlamaIndex: a FunctionAgent over OpenAILike, and a value of a class."""

from __future__ import annotations

from enum import Enum
from typing import Any

from llama_index.core.agent.workflow import AgentStream, FunctionAgent, ToolCallResult
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel
from report import BOTH, FREE, KEY, MODEL, ONE, REPORT, SCRIPTED, equal, run


def get_weather(city: str) -> str:
    """The weather of a city."""
    return "Rain."


def get_time(zone: str) -> str:
    """The time in a zone."""
    return "Noon."


class Zone(Enum):
    CET = "CET"
    UTC = "UTC"


class GetTime(BaseModel):
    """The time in a zone."""

    zone: Zone


def model(url: str, **more: Any) -> OpenAILike:
    asked = {"is_chat_model": True, "is_function_calling_model": True, "context_window": 4096, "max_retries": 0, **more}
    return OpenAILike(api_base=f"{url}/v1", api_key=KEY, model=MODEL, temperature=0, **asked)


async def agent(question: str, *, streaming: bool) -> tuple[str, list[tuple[str, Any]], str]:
    """Its answer, the calls with their arguments, and the text that streamed last."""
    made = FunctionAgent(tools=[get_weather, get_time], llm=model(SCRIPTED), streaming=streaming)
    running = made.run(question)
    called, streamed = [], ""
    async for event in running.stream_events():
        if isinstance(event, ToolCallResult):
            called.append((event.tool_name, event.tool_kwargs))
            streamed = ""
        elif isinstance(event, AgentStream):
            streamed += event.delta
    return str(await running), called, streamed


async def a_function_agent_streamed() -> None:
    expected = [("get_time", {"zone": "CET"}), ("get_weather", {"city": "Paris"})]
    answer, called, streamed = await agent(BOTH, streaming=True)
    equal((answer, sorted(called), streamed), (REPORT, expected, REPORT))


async def a_function_agent_plain() -> None:
    answer, called, _ = await agent(ONE, streaming=False)
    equal((answer, called), (REPORT, [("get_weather", {"city": "Paris"})]))


def a_chat_that_streams() -> None:
    from llama_index.core.tools import FunctionTool

    tools = [FunctionTool.from_defaults(get_weather), FunctionTool.from_defaults(get_time)]
    llm = model(SCRIPTED)
    last = list(llm.stream_chat_with_tools(tools, user_msg=ONE, allow_parallel_tool_calls=True))[-1]
    [call] = llm.get_tool_calls_from_response(last)
    equal((call.tool_name, call.tool_kwargs), ("get_weather", {"city": "Paris"}))


def structured_by_a_function() -> None:
    llm = model(FREE, max_tokens=200).as_structured_llm(GetTime)
    assert llm.chat([ChatMessage(role="user", content="What time is it?")]).raw.zone in Zone


def structured_by_a_schema() -> None:
    llm = model(FREE, max_tokens=200, should_use_structured_outputs=True).as_structured_llm(GetTime)
    assert llm.chat([ChatMessage(role="user", content="What time is it?")]).raw.zone in Zone


if __name__ == "__main__":
    run(
        a_function_agent_streamed,
        a_function_agent_plain,
        a_chat_that_streams,
        structured_by_a_function,
        structured_by_a_schema,
    )
