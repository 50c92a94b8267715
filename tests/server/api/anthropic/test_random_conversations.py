"""Random conversations and answers: each event is one that Anthropic's client knows, and all of them make the reply."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import anthropic.types as types
from anthropic._streaming import SSEDecoder
from anthropic.lib.streaming._messages import accumulate_event
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from llamabox.engine.events import Event, FinishReason
from llamabox.wire.text import Submit
from tests.chat.templates import HERMES
from tests.server.fake_client import INFO, FakeTextClient, delta, finished, started
from tests.server.harness import Running, running

N_EXAMPLES = 500

EVENTS: dict[str, TypeAdapter[Any]] = {
    "message_start": TypeAdapter(types.RawMessageStartEvent),
    "content_block_start": TypeAdapter(types.RawContentBlockStartEvent),
    "content_block_delta": TypeAdapter(types.RawContentBlockDeltaEvent),
    "content_block_stop": TypeAdapter(types.RawContentBlockStopEvent),
    "message_delta": TypeAdapter(types.RawMessageDeltaEvent),
    "message_stop": TypeAdapter(types.RawMessageStopEvent),
}

DELTAS = {
    "text": {"text_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
}

words = st.text(st.sampled_from('ab<>/{}[]"\\\n é你🌍\u2028'), max_size=12)
names = st.sampled_from(["look", "write_file"])
inputs = st.dictionaries(
    words, st.one_of(words, st.integers(-9, 9), st.none(), st.lists(words, max_size=2)), max_size=3
)


def block(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), **fields})


said = block("text", text=words)
ids = st.sampled_from(["toolu_abcdefghi", "toolu_123456789", "call_1"])
from_user = st.one_of(
    words,
    st.lists(
        st.one_of(
            said,
            block("tool_result", tool_use_id=ids, content=st.one_of(words, st.lists(said)), is_error=st.booleans()),
            block("search_result", title=words, source=words, content=st.lists(said)),
            block("document", source=block("text", media_type=st.just("text/plain"), data=words), title=words),
        )
    ),
)
from_assistant = st.lists(
    st.one_of(
        said,
        block("tool_use", id=ids, name=names, input=inputs),
        block("thinking", thinking=words, signature=st.just("x")),
        block("redacted_thinking", data=words),
        block("server_tool_use", id=words, name=words, input=inputs),
    )
)
messages = st.lists(
    st.one_of(
        st.fixed_dictionaries({"role": st.just("user"), "content": from_user}),
        st.fixed_dictionaries({"role": st.just("assistant"), "content": from_assistant}),
        st.fixed_dictionaries({"role": st.just("system"), "content": words}),
    ),
    max_size=5,
)


@st.composite
def answers(draw: st.DrawFn) -> str:
    """A text in the template's form, which may be cut off anywhere."""
    text = draw(st.sampled_from(["", "<think>\n{}\n</think>\n\n"])).replace("{}", draw(words)) + draw(words)
    for _ in range(draw(st.integers(0, 2))):
        call = {"name": draw(names), "arguments": draw(inputs)}
        text += f"\n<tool_call>\n{json.dumps(call, ensure_ascii=draw(st.booleans()))}\n</tool_call>"
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted({cut % (len(text) + 1) for cut in cuts}), len(text)]
    return [text[start:end] for start, end in pairwise(places)]


def steps(submit: Submit, said: list[str]) -> list[list[Event]]:
    events: list[list[Event]] = [[started(submit)]]
    events += [[delta(submit, piece, n)] for n, piece in enumerate(said, 1)]
    return [*events, [finished(submit, len(said), reason=FinishReason.STOP)]]


@asynccontextmanager
async def saying_in_turn(said: list[list[str]]) -> AsyncIterator[Running[FakeTextClient]]:
    """A server each of whose answers is the last of `said`."""
    info = replace(INFO, chat_template=HERMES, n_ctx=4096)
    client = FakeTextClient(lambda submit: steps(submit, said[-1]), info=info)
    async with running(client, within=600) as server:
        yield server


def checked(data: bytes) -> Any:
    """The message that a stream's events make, each of which is looked at."""
    message: Any = None
    buffers: dict[int, bytes] = {}
    kinds: list[str] = []
    open_block: dict[str, Any] | None = None
    n_blocks = 0
    for sse in SSEDecoder().iter_bytes(iter([data])):
        value = json.loads(sse.data)
        assert sse.event == value["type"]
        event = EVENTS[value["type"]].validate_python(value, strict=True)
        match value["type"]:
            case "content_block_start":
                assert open_block is None
                assert value["index"] == n_blocks
                open_block = value["content_block"]
            case "content_block_delta":
                assert open_block is not None
                assert value["index"] == n_blocks
                assert value["delta"]["type"] in DELTAS[open_block["type"]]
            case "content_block_stop":
                assert open_block is not None
                assert value["index"] == n_blocks
                open_block, n_blocks = None, n_blocks + 1
            case _:
                assert open_block is None
        kinds.append(value["type"])
        message = accumulate_event(event=event, current_snapshot=message, json_bufs=buffers)
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert all(kind.startswith("content_block") for kind in kinds[1:-2])
    return message


def without_ids(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks without the ids of calls, which differ from answer to answer and within one."""
    found = [one.pop("id") for one in content if one["type"] == "tool_use"]
    assert len(set(found)) == len(found)
    return content


def test_what_is_streamed_is_the_plain_reply() -> None:
    said: list[list[str]] = []
    look = {"name": "look", "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}}}
    write = {"name": "write_file", "input_schema": {"type": "object", "additionalProperties": True}}
    with asyncio.Runner() as runner:
        context = saying_in_turn(said)
        server = runner.run(context.__aenter__())

        async def ask(body: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
            plain = await server.http.post("/v1/messages", json=body)
            assert plain.status_code == 200, plain.text
            streamed = await server.http.post("/v1/messages", json={**body, "stream": True})
            assert streamed.headers["content-type"] == "text/event-stream"
            return plain.json(), streamed.content

        @given(
            messages,
            answers(),
            st.lists(st.integers(0, 200), max_size=8),
            st.sampled_from(["summarized", "omitted"]),
            st.booleans(),
        )
        @settings(max_examples=N_EXAMPLES, deadline=None, database=None)
        def converse(asked: list[dict[str, Any]], answer: str, cuts: list[int], display: str, has_tools: bool) -> None:
            said.append(pieces(answer, cuts))
            body = {
                "model": "m",
                "max_tokens": 1000,
                "messages": asked,
                "thinking": {"type": "adaptive", "display": display},
                "tools": [look, write] if has_tools else [],
            }
            plain, data = runner.run(ask(body))
            types.Message.model_validate(plain, strict=True)
            message = checked(data)
            assert message.usage.to_dict() == plain["usage"]
            assert (message.stop_reason, message.stop_sequence) == (plain["stop_reason"], plain["stop_sequence"])
            assert without_ids([one.to_dict() for one in message.content]) == without_ids(plain["content"])

        try:
            converse()
        finally:
            runner.run(context.__aexit__(None, None, None))
