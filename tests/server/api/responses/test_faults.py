"""What a client of /v1/responses sees when the service fails it."""

from __future__ import annotations

import asyncio

import openai
import pytest

from llamabox.engine.events import Event
from llamabox.errors import LlamaboxError, QueueFull, ServerFault
from llamabox.server.hosted.config import ModelConfig
from llamabox.wire.text import Submit
from tests.chat.templates import HERMES
from tests.server.api.responses.test_events import check_order, read_events
from tests.server.fake_client import FakeTextClient, delta, saying, started
from tests.server.harness import running

MODEL = ModelConfig(chat_template=HERMES)


def test_a_stream_that_fails_tells_so_in_its_last_event() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(), MODEL) as server:
            asking = asyncio.create_task(server.http.post("/v1/responses", json={"input": "Hi", "stream": True}))
            generation = await server.client.submitted()
            generation.push(started(generation.submit), delta(generation.submit, "Hello", 1))
            generation.fail(ServerFault("the worker died"))
            events = read_events((await asking).text)
            check_order(events)
            assert events[-1].type == "response.failed"
            assert events[-1].response.status == "failed"
            assert (events[-1].response.error.code, events[-1].response.error.message) == (
                "server_error",
                "the worker died",
            )
            assert events[-1].response.output[0].status == "incomplete"
            path = f"/v1/responses/{events[-1].response.id}"
            assert (await server.http.get(path)).status_code == 404

    asyncio.run(scene())


def test_a_response_that_fails_in_the_background_is_kept_as_failed() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(), MODEL) as server:
            begun = (await server.http.post("/v1/responses", json={"input": "Hi", "background": True})).json()
            generation = await server.client.submitted()
            following = asyncio.create_task(server.http.get(f"/v1/responses/{begun['id']}?stream=true"))
            generation.push(started(generation.submit))
            generation.fail(ServerFault("the worker died"))
            events = read_events((await following).text)
            assert events[-1].type == "response.failed"
            asked = {"input": "Go on", "previous_response_id": begun["id"]}
            reply = await server.http.post("/v1/responses", json=asked)
            assert "the response is failed" in reply.json()["error"]["message"]

    asyncio.run(scene())


def test_the_client_comes_back_where_the_queue_is_full() -> None:
    async def scene() -> None:
        hello, asked = saying("Hello"), list[Submit]()

        def script(submit: Submit) -> list[list[Event]] | LlamaboxError:
            asked.append(submit)
            return hello(submit) if len(asked) > 1 else QueueFull("too many wait", retry_after=1)

        async with running(FakeTextClient(script), MODEL) as server:
            url = f"http://127.0.0.1:{server.port}/v1"
            async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=1) as api:
                assert (await api.responses.create(model="m", input="Hi")).output_text == "Hello"
                assert len(asked) == 2
            async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as api:
                asked.clear()
                with pytest.raises(openai.InternalServerError, match="too many wait"):
                    await api.responses.create(model="m", input="Hi", stream=True)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"type": "input_image", "image_url": "data:image/png;base64,AAAA"}, "input[1].content[0].image_url"),
        ({"type": "input_image", "file_id": "file_1"}, "input[1].content[0].file_id"),
        ({"type": "input_file", "file_url": "http://a.example/b"}, "input[1].content[0].file_url"),
        ({"type": "input_file", "file_data": "JVBERi0xLjQK/w=="}, "input[1].content[0].file_data"),
        ({"type": "input_video"}, "input[1].content[0]"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["type"],
)
def test_a_part_that_cannot_be_taken_is_named(part: dict[str, str], field: str) -> None:
    async def scene() -> None:
        async with running(FakeTextClient(saying("Hello")), MODEL) as server:
            items = [{"role": "user", "content": "Hi"}, {"role": "user", "content": [part]}]
            reply = await server.http.post("/v1/responses", json={"input": items})
            assert reply.status_code == 400
            assert f"'{field}'" in reply.json()["error"]["message"]

    asyncio.run(scene())
