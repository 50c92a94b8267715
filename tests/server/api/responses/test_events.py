"""Every stream is what OpenAI's client takes it for: its types, its order, and the object that it adds up to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from llamabox.engine.events import FinishReason
from llamabox.server.hosted.config import ModelConfig
from tests.chat.templates import HERMES
from tests.server.api.responses.conversations import NAMES, TOOLS, Said, answers, conversations, in_pieces
from tests.server.fake_client import FakeTextClient, saying
from tests.server.harness import text_app

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ROUTE = "/v1/responses"

ADDED = "response.output_item.added"
DONE = "response.output_item.done"
DELTAS = {
    "response.output_text.delta": "response.output_text.done",
    "response.reasoning_text.delta": "response.reasoning_text.done",
    "response.reasoning_summary_text.delta": "response.reasoning_summary_text.done",
    "response.function_call_arguments.delta": "response.function_call_arguments.done",
    "response.custom_tool_call_input.delta": "response.custom_tool_call_input.done",
}
WHOLE = ("text", "arguments", "input")
"""The field of a `.done` event that has all of its deltas."""


@pytest.fixture(scope="module")
def worker() -> FakeTextClient:
    return FakeTextClient(saying("Hi"))


@pytest.fixture(scope="module")
def http(worker: FakeTextClient) -> Iterator[TestClient]:
    with TestClient(text_app(worker, ModelConfig(chat_template=HERMES))) as http:
        yield http


def read_events(text: str) -> list[Any]:
    """The events of a stream as the client's types, whose names stand in `event:` too."""
    found = []
    for block in text.split("\n\n"):
        if not block or block.startswith(":"):
            continue
        name, data = block.split("\n")
        event = EVENTS.validate_json(data.removeprefix("data: "), strict=False)
        assert name == f"event: {event.type}"
        found.append(event)
    return found


def check_order(events: list[Any]) -> None:
    """Numbers without gaps; items and their parts opened and closed once, one behind the other."""
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    n_opened, item, part, said = 0, None, None, ""
    for event in events[2:-1]:
        if event.type == ADDED:
            assert item is None
            assert event.output_index == n_opened
            item, n_opened, said = event.item, n_opened + 1, ""
            continue
        assert item is not None
        assert event.output_index == n_opened - 1
        if event.type == DONE:
            assert part is None
            assert event.item.id == item.id
            item = None
            continue
        assert event.item_id == item.id
        if event.type.endswith("part.added"):
            assert part is None
            part = event.type
        elif event.type.endswith("part.done"):
            assert part == event.type.replace(".done", ".added")
            part = None
        elif event.type in DELTAS:
            assert event.delta
            said += event.delta
        else:
            assert event.type in DELTAS.values()
            assert said == next(getattr(event, name) for name in WHOLE if hasattr(event, name))
    assert item is None


def finals(events: list[Any]) -> dict[str, Any]:
    """The whole response, whose items are those that were closed."""
    final = events[-1].response
    assert [event.item for event in events if event.type == DONE] == final.output
    assert {event.response.id for event in events if hasattr(event, "response")} == {final.id}
    return final.model_dump(mode="json")


def without_ids(value: Any) -> Any:
    """The response without what is drawn or told by a clock."""
    if isinstance(value, dict):
        unsaid = ("id", "call_id", "created_at", "completed_at", "encrypted_content")
        return {key: without_ids(one) for key, one in value.items() if key not in unsaid}
    return [without_ids(one) for one in value] if isinstance(value, list) else value


wishes = st.fixed_dictionaries(
    {},
    optional={
        "instructions": st.just("Be brief."),
        "include": st.just(["reasoning.encrypted_content"]),
        "reasoning": st.just({"summary": "auto"}),
        "parallel_tool_calls": st.booleans(),
        "tool_choice": st.sampled_from(["auto", "none", {"type": "function", "name": "time"}]),
        "metadata": st.just({"a": "b"}),
    },
)


@given(
    input=conversations,
    answer=answers,
    cuts=st.lists(st.integers(0, 500), max_size=12),
    reason=st.sampled_from([FinishReason.STOP, FinishReason.LENGTH]),
    wishes=wishes,
)
@settings(max_examples=500, deadline=None)
def test_streams_of_random_conversations(
    worker: FakeTextClient,
    http: TestClient,
    input: Any,
    answer: Said,
    cuts: list[int],
    reason: FinishReason,
    wishes: dict[str, Any],
) -> None:
    worker.script = in_pieces(answer.written(), cuts, reason)
    asked = {"input": input, "tools": TOOLS, **wishes}
    streamed = http.post(ROUTE, json={**asked, "stream": True})
    assert streamed.status_code == 200, streamed.text
    events = read_events(streamed.text)
    check_order(events)
    final = finals(events)
    assert events[-1].type == ("response.completed" if reason is FinishReason.STOP else "response.incomplete")
    if wishes.get("tool_choice") != "none":
        check_said(answer, final["output"])
    if len(cuts) % 2:
        return
    plain = http.post(ROUTE, json=asked)
    whole = Response.model_validate(plain.json()).model_dump(mode="json")
    assert without_ids(whole) == without_ids(final)


def check_said(answer: Said, output: list[dict[str, Any]]) -> None:
    """What the model wrote is there, each in its kind of item."""
    told: dict[str, list[Any]] = {"reasoning": [], "message": [], "calls": []}
    for item in output:
        told["calls" if "call" in item["type"] else item["type"]].append(item)
    thoughts = "".join(part["text"] for item in told["reasoning"] for part in item["content"] + item["summary"])
    said = "".join(part["text"] for item in told["message"] for part in item["content"])
    assert (thoughts, said) == (answer.thought, answer.text)
    calls = []
    for item in told["calls"]:
        given = {"input": item["input"]} if item["type"] == "custom_tool_call" else json.loads(item["arguments"])
        calls.append((item["name"], item.get("namespace"), given))
    assert calls == [(*NAMES.get(name, (name, None)), arguments) for name, arguments in answer.calls]


def test_what_comes_back_is_rendered_as_the_model_wrote_it(worker: FakeTextClient, http: TestClient) -> None:
    said = Said(
        "It may rain.", "I look.", [("weather", {"city": "Paris"}), ("mail__send", {}), ("patch", {"input": "x"})]
    )
    worker.script = in_pieces(said.written(), [], FinishReason.STOP)
    asked = {"tools": TOOLS, "include": ["reasoning.encrypted_content"], "store": False}
    first = http.post(ROUTE, json={**asked, "input": "Hi"}).json()
    [prompt] = worker.submits[-1].prompt
    thought, *others = first["output"]
    results = [
        {"type": item["type"] + "_output", "call_id": item["call_id"], "output": "Done."}
        for item in others
        if "call_id" in item
    ]
    history = [{"role": "user", "content": "Hi"}, {**thought, "content": None}, *others, *results]
    assert http.post(ROUTE, json={**asked, "input": history}).status_code == 200
    [again] = worker.submits[-1].prompt
    assert isinstance(prompt, str)
    assert isinstance(again, str)
    assert again.startswith(prompt + said.written())
