"""The unmodified openai client's Responses against a real server.

The demo model is too small to call by itself: the grammar makes it call, and a grammar of the server's makes it say
what a test wants it to say.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jsonschema
import openai
import pytest
from openai.types.responses import Response
from pydantic import BaseModel

from tests.chat.templates import HERMES
from tests.e2e.server_process import ServerProcess

BOOK: Any = [{"role": "system", "content": "Book"}, {"role": "user", "content": "What is the best book"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ZONE = {"type": "object", "properties": {"zone": {"enum": ["CET", "UTC"]}}, "required": ["zone"]}
WEATHER: Any = {"type": "function", "name": "get_weather", "description": "The weather in a city.", "parameters": CITY}
TIME: Any = {"type": "function", "name": "get_time", "parameters": ZONE}
DATE: Any = {
    "type": "custom",
    "name": "set_date",
    "description": "Sets a date.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: /20[0-9][0-9]/ "-" /0[1-9]/ "-" /0[1-9]/'},
}
ANSWER = (
    "<think>\nBoth are needed.\n</think>\n\nI look.\n"
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "get_time", "arguments": {"zone": "CET"}}\n</tool_call>'
)

N_TURNS = int(os.environ.get("LLAMABOX_AGENT_TURNS", "3"))
N_TOOLS = 60 if N_TURNS >= 12 else 12


class Colour(BaseModel):
    """What a structured answer is."""

    name: Literal["red", "blue"]
    is_warm: bool


@pytest.fixture(scope="module")
def server(serve: Callable[..., ServerProcess]) -> ServerProcess:
    return serve("-c", "16384", "-np", "2")


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def scripted(serve: Callable[..., ServerProcess]) -> Iterator[openai.OpenAI]:
    """A client of a server that says ANSWER, whatever it is asked, with 1,024 tokens of context."""
    server = serve("-c", "2048", "-np", "2", "--grammar", f"root ::= {json.dumps(ANSWER)}", "--chat-template", HERMES)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, **asked: Any) -> Response:
    """A plain reply, which the streamed one must equal."""
    asked = {"model": "m", "input": "Say hello.", "max_output_tokens": 64, "temperature": 0, **asked}
    plain = client.responses.create(**asked)
    events = list(client.responses.create(**asked, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    streamed = events[-1].response
    assert events[-1].type == f"response.{plain.status}"
    assert without_ids(streamed) == without_ids(plain)
    return plain


def without_ids(response: Response) -> list[dict[str, Any]]:
    items = [item.to_dict() for item in response.output]
    return [{name: value for name, value in item.items() if name not in ("id", "call_id")} for item in items]


def test_a_text_as_llama_server_tests_it(client: openai.OpenAI) -> None:
    plain = ask(client, model="gpt-4.1", input=BOOK, max_output_tokens=8)
    assert plain.id.startswith("resp_")
    assert plain.output[0].id.startswith("msg_")
    assert plain.output_text
    assert (plain.status, plain.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert plain.usage.output_tokens == 8
    counted = client.responses.input_tokens.count(model="m", input=BOOK)
    assert counted.input_tokens == plain.usage.input_tokens


def test_telemetry_as_llama_server_tests_it(server: ServerProcess) -> None:
    asked = {"input": "This is a test" * 10, "max_output_tokens": 4, "timings_per_token": True, "return_progress": True}
    seen = set()
    for event in server.stream("/responses", {**asked, "grammar": 'root ::= "Hello"'}):
        if "prompt_progress" in event:
            assert event["type"] == "response.in_progress"
            progress = event["prompt_progress"]
            assert progress["total"] >= progress["processed"] >= progress["cache"]
            assert progress["total"] > 0
            seen.add("progress")
        if "timings" in event:
            assert {"prompt_per_second", "predicted_per_second"} <= event["timings"].keys()
            seen.add(event["type"])
    assert seen == {"progress", "response.output_text.delta", "response.completed"}
    assert "usage" in event["response"]


def test_the_clients_helpers(client: openai.OpenAI) -> None:
    asked: Any = {"model": "m", "input": "Name a colour.", "text_format": Colour}
    with client.responses.stream(**asked) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert Colour.model_validate_json(text) == final.output_parsed
    assert isinstance(client.responses.parse(**asked).output_parsed, Colour)


def test_tools_that_must_be_called_and_what_they_answer(client: openai.OpenAI) -> None:
    first = ask(client, tools=[WEATHER, TIME], tool_choice="required", parallel_tool_calls=False)
    [call] = first.output
    jsonschema.validate(json.loads(call.arguments), CITY if call.name == "get_weather" else ZONE)
    named: Any = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_time"}]}
    for choice in (named, {"type": "function", "name": "get_time"}):
        [told] = ask(client, tools=[WEATHER, TIME], tool_choice=choice, parallel_tool_calls=False).output
        assert told.name == "get_time"
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "It rains."}
    history: Any = [{"role": "user", "content": "Say hello."}, call.to_dict(), result]
    by_history = ask(client, input=history, tools=[WEATHER, TIME], tool_choice="none", max_output_tokens=8)
    by_id = client.responses.create(
        model="m",
        input=[result],
        previous_response_id=first.id,
        tools=[WEATHER, TIME],
        tool_choice="none",
        max_output_tokens=8,
        temperature=0,
    )
    assert by_id.output_text == by_history.output_text
    assert by_id.usage.input_tokens == by_history.usage.input_tokens


def test_a_custom_tool_is_kept_to_its_grammar(client: openai.OpenAI) -> None:
    choice: Any = {"type": "custom", "name": "set_date"}
    [call] = ask(client, tools=[WEATHER, DATE], tool_choice=choice, parallel_tool_calls=False).output
    assert call.type == "custom_tool_call"
    assert re.fullmatch("20[0-9]{2}-0[1-9]-0[1-9]", call.input)
    history: Any = [
        {"role": "user", "content": "Say hello."},
        call.to_dict(),
        {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "Done."},
    ]
    assert ask(client, input=history, tools=[DATE], tool_choice="none", max_output_tokens=8).output_text


def test_thoughts_and_calls_in_parallel_come_back(scripted: openai.OpenAI) -> None:
    asked: Any = {"tools": [WEATHER, TIME], "include": ["reasoning.encrypted_content"], "store": False}
    answer = ask(scripted, **asked, max_output_tokens=256)
    thought, message, *calls = answer.output
    assert thought.content[0].text == "Both are needed."
    assert message.content[0].text == "I look."
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [
        ("get_weather", {"city": "Paris"}),
        ("get_time", {"zone": "CET"}),
    ]
    assert 0 < answer.usage.output_tokens_details.reasoning_tokens < answer.usage.output_tokens
    summed = ask(scripted, **asked, reasoning={"summary": "auto"}, max_output_tokens=256)
    assert summed.output[0].summary[0].text == "Both are needed."
    sealed = {"type": "reasoning", "summary": [], "content": None, "id": thought.id}
    sealed["encrypted_content"] = thought.encrypted_content
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "Good."} for call in calls]
    items = [item.to_dict() for item in answer.output[1:]]
    whole: Any = [{"role": "user", "content": "Say hello."}, sealed, *items, *results]
    second = scripted.responses.create(model="m", input=whole, **asked, max_output_tokens=4)
    assert second.usage.input_tokens_details.cached_tokens >= answer.usage.input_tokens - 3


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (
            {"input": [{"type": "message", "role": "user", "content": [{"type": "input_text"}]}]},
            "input[0].content[0].text",
        ),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": 5}}}, "text.format.schema"),
        ({"max_output_tokens": "x"}, "max_output_tokens"),
        ({"input": "word " * 9000}, "context"),
    ],
)
def test_what_is_wrong_is_told_by_the_clients_own_class(client: openai.OpenAI, asked: Any, field: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**{"model": "m", "input": "Hi", **asked})
    assert field in refused.value.message


def test_a_conversation_that_is_too_long_loses_its_oldest_turns(scripted: openai.OpenAI) -> None:
    turns: Any = [{"role": "developer", "content": "Answer with one word."}]
    for n in range(8):
        turns += [{"role": "user", "content": f"{n} " + "word " * 150}, {"role": "assistant", "content": "Yes."}]
    turns.append({"role": "user", "content": "Say hello."})
    with pytest.raises(openai.BadRequestError, match="context"):
        scripted.responses.create(model="m", input=turns)
    told = scripted.responses.with_raw_response.create(model="m", input=turns, truncation="auto", max_output_tokens=8)
    answer = told.parse()
    assert answer.truncation == "auto"
    assert 0 < answer.dropped_turns < 8
    assert f"{answer.dropped_turns} oldest turns" in told.headers["warning"]
    assert answer.usage.input_tokens < 1024 - 8


@pytest.mark.parametrize("n_words", [1100, 9000], ids=["found by its tokens", "found by its characters"])
def test_a_stream_of_what_is_too_long_fails_by_the_code_that_agents_know(scripted: openai.OpenAI, n_words: int) -> None:
    asked: Any = {"model": "m", "input": "word " * n_words}
    with pytest.raises(openai.BadRequestError, match="context"):
        scripted.responses.create(**asked)
    events = list(scripted.responses.create(stream=True, **asked))
    assert [event.type for event in events] == ["response.created", "response.in_progress", "response.failed"]
    assert [event.sequence_number for event in events] == [0, 1, 2]
    failed: Any = events[-1]
    assert failed.response.status == "failed"
    assert failed.response.error.code == "context_length_exceeded"
    assert "1024" in failed.response.error.message


def test_an_agents_turns_begin_where_the_last_one_ended(client: openai.OpenAI) -> None:
    tools: Any = [{**WEATHER, "name": f"tool_{n}"} for n in range(N_TOOLS)]
    history: Any = [{"role": "user", "content": "Begin."}]
    shared = 0
    for turn in range(N_TURNS):
        answer = client.responses.create(
            model="m",
            instructions="You are an agent.",
            input=history,
            tools=tools,
            tool_choice="required",
            parallel_tool_calls=False,
            max_output_tokens=64,
            store=False,
            temperature=0,
        )
        if turn:
            assert answer.usage.input_tokens_details.cached_tokens >= 0.98 * shared
        shared = answer.usage.input_tokens
        client.responses.create(model="m", input=f"A title for {turn}, please.", max_output_tokens=4, store=False)
        history += [item.to_dict() for item in answer.output]
        calls = [item for item in answer.output if item.type == "function_call"]
        history += [{"type": "function_call_output", "call_id": call.call_id, "output": f"{turn}."} for call in calls]
