"""A conversation that was compacted goes on from the model's own summary, and from what the user said."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from llamabox.engine.events import FinishReason
from llamabox.server.api.openai.responses.compaction import ASKED
from llamabox.server.hosted.config import ModelConfig
from tests.chat.templates import HERMES
from tests.server.api.responses.conversations import WEATHER, in_pieces
from tests.server.api.responses.test_store import client, prompts
from tests.server.fake_client import FakeTextClient, saying
from tests.server.harness import running

MODEL = ModelConfig(chat_template=HERMES)
SUMMARY = "Rain was asked about."
CALL = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": json.dumps({"city": "Paris"})}
INPUT: Any = [
    {"role": "user", "content": "Does it rain?"},
    CALL,
    {"type": "function_call_output", "call_id": "call_1", "output": "It pours."},
    {"role": "user", "content": [{"type": "input_text", "text": "And tomorrow?"}]},
]


def test_what_is_left_is_what_the_user_said_and_a_summary_of_everything() -> None:
    async def scene() -> None:
        fake = FakeTextClient(in_pieces(f"<think>\nWell.\n</think>\n\n{SUMMARY}", [30], FinishReason.STOP))
        async with running(fake, MODEL) as server, client(server) as api:
            asked: Any = {"model": "m", "instructions": "Be brief.", "tools": [WEATHER]}
            await api.responses.create(input=INPUT, **asked)
            told = await api.responses.compact(
                model="m", input=INPUT, instructions="Be brief.", extra_body={"tools": [WEATHER]}
            )
            before, compacting = prompts(server)
            start = before.removesuffix("<|im_start|>assistant\n")
            assert compacting.startswith(start), "it begins from what is resident"
            assert str(ASKED["content"]) in compacting
            assert told.object == "response.compaction"
            assert [item.type for item in told.output] == ["message", "message", "compaction"]
            assert [item.content[0].text for item in told.output[:2]] == ["Does it rain?", "And tomorrow?"]
            assert told.usage.input_tokens + told.usage.output_tokens == told.usage.total_tokens
            items: Any = [item.to_dict(warnings=False) for item in told.output]
            response = await api.responses.create(input=[*items, {"role": "user", "content": "So?"}], **asked)
            after = prompts(server)[-1]
            order = [after.index(text) for text in ("Be brief.", "Does it rain?", "And tomorrow?", SUMMARY, "So?")]
            assert order == sorted(order)
            assert "It pours." not in after
            assert "Well." not in after
            await api.responses.create(input="Go on.", previous_response_id=response.id, **asked)
            assert SUMMARY in prompts(server)[-1], "a compaction is stored as any item"
            again = await api.responses.compact(model="m", previous_response_id=response.id)
            assert [item.type for item in again.output] == ["message", "message", "message", "compaction"]

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"stream": True}, "stream"),
        ({"background": True}, "background"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": None, "previous_response_id": "resp_0"}, "previous_response_id"),
        ({"input": [{"type": "compaction"}]}, "input[0].encrypted_content"),
    ],
)
def test_what_is_wrong_is_named(asked: dict[str, Any], field: str) -> None:
    async def scene() -> None:
        async with running(FakeTextClient(saying("Hello")), MODEL) as server:
            reply = await server.http.post("/responses/compact", json={"input": "Hi", **asked})
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, field)

    asyncio.run(scene())


def test_a_summary_that_is_empty_is_no_compaction_and_one_that_is_cut_off_says_so() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(saying(" ", "\n")), MODEL) as server, client(server) as api:
            with pytest.raises(openai.InternalServerError, match="said nothing"):
                await api.responses.compact(model="m", input="Hi")
        async with running(FakeTextClient(saying("Rain")), MODEL) as server:
            reply = await server.http.post("/v1/responses/compact", json={"input": "Hi"})
            assert "cut off after 1 tokens" in reply.headers["warning"]

    asyncio.run(scene())


def test_a_compaction_of_another_server_s_is_left_out_with_a_warning() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(saying("Hello")), MODEL) as server:
            items = [{"type": "compaction", "encrypted_content": "gAAAAAB"}, {"role": "user", "content": "Hi"}]
            reply = await server.http.post("/v1/responses", json={"input": items})
            assert "items of type compaction" in reply.headers["warning"]

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("field", "value", "instead"),
    [
        ("conversation", "conv_1", "previous_response_id"),
        ("context_management", [{"type": "compaction"}], "/v1/responses/compact"),
        ("prompt", {"id": "p"}, "instructions"),
    ],
)
def test_what_openai_keeps_itself_is_refused_with_what_does_the_same(field: str, value: object, instead: str) -> None:
    async def scene() -> None:
        async with running(FakeTextClient(saying("Hello")), MODEL) as server:
            error = (await server.http.post("/v1/responses", json={"input": "Hi", field: value})).json()["error"]
            assert error["param"] == field
            assert instead in error["message"]

    asyncio.run(scene())
