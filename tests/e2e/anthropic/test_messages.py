"""The unmodified anthropic client against a real server.

The demo model is too small to call by itself: the grammar makes it call, and a grammar of the server's makes it say
what a test wants it to say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import jsonschema
import pytest

from tests.chat.templates import HERMES
from tests.e2e.server_process import ServerProcess

HI: list[Any] = [{"role": "user", "content": "Say hello."}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "get_weather", "description": "The weather in a city.", "input_schema": SCHEMA}
TIME = {
    "name": "get_time",
    "input_schema": {"type": "object", "properties": {"zone": {"enum": ["CET", "UTC"]}}, "required": ["zone"]},
}
TOOLS: list[Any] = [WEATHER, TIME]
GREEDY = {"temperature": 0}
"""The client has no argument for it any more."""

ANSWER = (
    "<think>\nBoth are needed.\n</think>\n\nI look.\n"
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "get_time", "arguments": {"zone": "CET"}}\n</tool_call>'
)

N_TURNS = int(os.environ.get("LLAMABOX_AGENT_TURNS", "3"))
N_TOOLS = 5 * N_TURNS


@pytest.fixture(scope="module")
def server(serve: Callable[..., ServerProcess]) -> ServerProcess:
    return serve("-c", "16384", "-np", "2")


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as made:
        yield made


def ask(client: anthropic.Anthropic, **asked: Any) -> anthropic.types.Message:
    """A plain reply, which the streamed one must equal."""
    asked = {"model": "m", "messages": HI, "max_tokens": 16, "extra_body": GREEDY, **asked}
    plain = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    assert without_ids(streamed) == without_ids(plain)
    assert (streamed.stop_reason, streamed.stop_sequence) == (plain.stop_reason, plain.stop_sequence)
    assert streamed.usage.output_tokens == plain.usage.output_tokens
    assert n_prompt(streamed) == n_prompt(plain)
    return plain


def without_ids(message: anthropic.types.Message) -> list[Any]:
    found = [block.to_dict() for block in message.content]
    return [{name: value for name, value in block.items() if name not in ("id", "parsed_output")} for block in found]


def n_prompt(message: anthropic.types.Message) -> int:
    return message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_texts_of_several_turns(client: anthropic.Anthropic) -> None:
    first = ask(client, system="You are brief.")
    assert first.stop_reason in ("end_turn", "max_tokens")
    assert text_of(first)
    answered: list[Any] = [*HI, first.to_param(), {"role": "user", "content": [{"type": "text", "text": "Again."}]}]
    second = ask(client, system=[{"type": "text", "text": "You are brief."}], messages=answered)
    assert n_prompt(second) > n_prompt(first)
    assert second.usage.cache_read_input_tokens


def test_what_is_counted_is_what_is_charged(client: anthropic.Anthropic) -> None:
    call = {"type": "tool_use", "id": "toolu_abcdefghi", "name": "get_weather", "input": {"city": "Paris"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_abcdefghi", "content": "Rain.", "is_error": True}
    large = {"role": "user", "content": "so it is " * 8000}
    bodies: list[dict[str, Any]] = [
        {"messages": HI},
        {"messages": HI, "system": "You are brief.", "tools": TOOLS},
        {"messages": [*HI, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]},
        {"messages": [*HI, {"role": "assistant", "content": "Well"}], "thinking": {"type": "adaptive"}},
    ]
    for body in bodies:
        counted = client.messages.count_tokens(model="m", **body).input_tokens
        assert counted == n_prompt(client.messages.create(model="m", max_tokens=1, **body))
    assert client.messages.count_tokens(model="m", messages=[large]).input_tokens > 24_000


def test_a_stop_sequence_and_the_start_of_an_answer(client: anthropic.Anthropic) -> None:
    messages: list[Any] = [
        {"role": "user", "content": "Count from one to ten."},
        {"role": "assistant", "content": "1, 2, 3,"},
    ]
    message = ask(client, messages=messages, stop_sequences=["6"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "6")
    assert "4" in text_of(message)
    assert "1, 2" not in text_of(message)


def test_an_answer_that_fits_a_schema(client: anthropic.Anthropic) -> None:
    form = {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "low"}
    message = ask(client, output_config=form, max_tokens=64)
    jsonschema.validate(json.loads(text_of(message)), SCHEMA)


def test_a_call_its_result_and_a_text(client: anthropic.Anthropic) -> None:
    choice = {"type": "any", "disable_parallel_tool_use": True}
    first = ask(client, tools=TOOLS, tool_choice=choice, max_tokens=64)
    assert first.stop_reason == "tool_use"
    [call] = [block for block in first.content if block.type == "tool_use"]
    assert call.name in ("get_weather", "get_time")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "It rains."}]}
    messages: list[Any] = [*HI, first.to_param(), {"role": "user", "content": [result]}]
    second = ask(client, messages=messages, tools=TOOLS, tool_choice={"type": "none"})
    assert second.stop_reason in ("end_turn", "max_tokens")
    named = ask(client, tools=TOOLS, tool_choice={"type": "tool", "name": "get_time"}, max_tokens=64)
    assert next(block.name for block in named.content if block.type == "tool_use") == "get_time"


def test_a_thought_a_text_and_two_calls(serve: Callable[..., ServerProcess]) -> None:
    server = serve("-c", "4096", "-np", "2", "--grammar", f"root ::= {json.dumps(ANSWER)}", "--chat-template", HERMES)
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        asked: dict[str, Any] = {"tools": TOOLS, "max_tokens": 256}
        shown = ask(client, **asked, thinking={"type": "enabled", "budget_tokens": 1024})
        thought, text, *calls = shown.content
        assert (thought.type, text.type, text_of(shown)) == ("thinking", "text", "I look.")
        assert (thought.thinking, bool(thought.signature)) == ("Both are needed.", True)
        told = [(call.name, call.input) for call in calls if call.type == "tool_use"]
        assert told == [("get_weather", {"city": "Paris"}), ("get_time", {"zone": "CET"})]
        assert shown.stop_reason == "tool_use"
        details = shown.usage.output_tokens_details
        assert details is not None
        assert 0 < details.thinking_tokens < shown.usage.output_tokens
        hidden = ask(client, **asked, thinking={"type": "adaptive", "display": "omitted"})
        assert hidden.content[0].to_dict()["thinking"] == ""
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": "x"} for call in calls if call.type == "tool_use"
        ]
        counts = [
            client.messages.count_tokens(
                model="m", messages=[*HI, one.to_param(), {"role": "user", "content": results}]
            ).input_tokens
            for one in (shown, hidden)
        ]
        assert counts[0] == counts[1], "a thought that is not shown comes back, too"


def test_errors_are_the_client_s_own(client: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {"model": "m", "max_tokens": 8}
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 8192 maximum"):
        client.messages.create(**asked, messages=[{"role": "user", "content": "so it is " * 6000}])
    tool: Any = {"name": "a", "input_schema": {"type": "array"}}
    with pytest.raises(anthropic.BadRequestError, match=r"tools\[0\].input_schema"):
        client.messages.create(**asked, messages=HI, tools=[tool])
    picture: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    with pytest.raises(anthropic.BadRequestError, match="image input is not supported"):
        client.messages.create(**asked, messages=[{"role": "user", "content": [picture]}])
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.list()


def test_an_agent_s_turns_begin_where_the_last_one_ended(client: anthropic.Anthropic) -> None:
    """As Claude Code asks: with a header that changes, a system text behind each result, and titles in between."""
    tools: list[Any] = [
        {
            "name": f"tool_{i}",
            "description": f"Does what tool {i} is for.",
            "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
        }
        for i in range(N_TOOLS)
    ]
    messages: list[Any] = [{"role": "user", "content": "Mend the greeting in hello.py."}]
    before = 0
    for turn in range(N_TURNS):
        header = f"x-anthropic-billing-header: cc_version=2.1.207.{turn:03x}; cch={turn:05x};"
        system: list[Any] = [{"type": "text", "text": text} for text in (header, "You are an agent.")]
        reply = client.messages.create(
            model="m",
            system=system,
            messages=messages,
            tools=tools,
            tool_choice={"type": "tool", "name": f"tool_{turn}", "disable_parallel_tool_use": True},
            max_tokens=48,
            extra_body=GREEDY,
        )
        read = reply.usage.cache_read_input_tokens or 0
        assert read >= 0.98 * before, f"turn {turn}: {read} of {before} tokens were there"
        before = n_prompt(reply)
        title: Any = {"role": "user", "content": f"A title for turn {turn}, please."}
        client.messages.create(model="m", system="You write titles.", messages=[title], max_tokens=4)
        call_id = f"toolu_{turn:09}"
        messages += [
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": call_id, "name": f"tool_{turn}", "input": {"path": "hello.py"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": f"line {turn}"}]},
            {"role": "system", "content": f"<total_tokens>{10_000 - turn} left</total_tokens>"},
        ]
    assert before > 40 * N_TOOLS
