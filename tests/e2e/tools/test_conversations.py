"""Conversations with tools as agents have them by the unmodified openai client: a call, its result, a text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.e2e.scripted_model import ARGUMENTS, INTRODUCTION, REPORT
from tests.e2e.server_process import ServerProcess


class GetWeather(BaseModel):
    """The weather of a city."""

    city: str


class Zone(Enum):
    CET = "CET"
    UTC = "UTC"


class GetTime(BaseModel):
    """The time in a zone."""

    zone: Zone


TOOLS = [
    openai.pydantic_function_tool(GetWeather, name="get_weather"),
    openai.pydantic_function_tool(GetTime, name="get_time"),
]
RESULTS = {"get_weather": "Rain.", "get_time": "Noon."}
ONE, BOTH = "What is the weather in Paris?", "Tell me both."


@pytest.fixture(scope="module")
def url(serve: Callable[..., ServerProcess]) -> str:
    return f"{serve(*ARGUMENTS).url}/v1"


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def plain(client: openai.OpenAI, **asked: Any) -> Any:
    return client.chat.completions.create(**asked).choices[0]


def by_the_helper(client: openai.OpenAI, **asked: Any) -> Any:
    with client.chat.completions.stream(**asked) as stream:
        return stream.get_final_completion().choices[0]


def parsed(client: openai.OpenAI, **asked: Any) -> Any:
    return client.chat.completions.parse(**asked).choices[0]


WAYS = {"plain": plain, "stream": by_the_helper, "parse": parsed}


def results_of(message: Any) -> list[dict[str, Any]]:
    """A tool's message for each call."""
    return [
        {"role": "tool", "tool_call_id": call.id, "content": RESULTS[call.function.name]} for call in message.tool_calls
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("question", "said", "calls"),
    [
        (ONE, INTRODUCTION, [("get_weather", {"city": "Paris"})]),
        (BOTH, None, [("get_weather", {"city": "Paris"}), ("get_time", {"zone": "CET"})]),
    ],
    ids=["one", "both"],
)
def test_a_call_its_result_a_text(
    client: openai.OpenAI, way: str, question: str, said: str | None, calls: list[tuple[str, Any]]
) -> None:
    asked: dict[str, Any] = {"model": "m", "tools": TOOLS, "temperature": 0}
    messages: list[Any] = [{"role": "user", "content": question}]
    first = WAYS[way](client, messages=messages, **asked)
    assert first.finish_reason == "tool_calls"
    assert first.message.content == said
    told = [(call.function.name, json.loads(call.function.arguments)) for call in first.message.tool_calls]
    assert told == calls
    assert len({call.id for call in first.message.tool_calls}) == len(calls)
    if way != "plain":
        assert first.message.tool_calls[0].function.parsed_arguments == GetWeather(city="Paris")
    messages += [first.message, *results_of(first.message)]
    second = WAYS[way](client, messages=messages, **asked)
    assert (second.finish_reason, second.message.content, second.message.tool_calls) == ("stop", REPORT, None)


def test_the_events_of_the_helper(client: openai.OpenAI) -> None:
    """Its arguments come as deltas, and are read as partial JSON on their way."""
    asked: dict[str, Any] = {"model": "m", "tools": TOOLS, "messages": [{"role": "user", "content": BOTH}]}
    with client.chat.completions.stream(**asked) as stream:
        events = list(stream)
    deltas = [event for event in events if event.type == "tool_calls.function.arguments.delta"]
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [(one.index, one.name, json.loads(one.arguments)) for one in done] == [
        (0, "get_weather", {"city": "Paris"}),
        (1, "get_time", {"zone": "CET"}),
    ]
    for one in done:
        assert "".join(delta.arguments_delta for delta in deltas if delta.index == one.index) == one.arguments
    assert done[1].parsed_arguments == GetTime(zone=Zone.CET)


def test_the_asynchronous_client(url: str) -> None:
    async def talk() -> str:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            messages: list[Any] = [{"role": "user", "content": ONE}]
            async with client.chat.completions.stream(model="m", tools=TOOLS, messages=messages) as stream:
                message = (await stream.get_final_completion()).choices[0].message
            messages += [message, *results_of(message)]
            reply = client.chat.completions.create(model="m", tools=TOOLS, messages=messages, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in await reply if chunk.choices])

    assert asyncio.run(talk()) == REPORT


def test_a_value_of_a_class(serve: Callable[..., ServerProcess]) -> None:
    """`.parse()` gives one, whose schema is enforced."""
    url = f"{serve('-c', '8192', '-np', '4').url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "What time is it?"}]
        asked: dict[str, Any] = {"model": "m", "messages": messages, "response_format": GetTime, "max_tokens": 64}
        assert client.chat.completions.parse(**asked).choices[0].message.parsed.zone in Zone
        with client.chat.completions.stream(**asked) as stream:
            assert stream.get_final_completion().choices[0].message.parsed.zone in Zone
