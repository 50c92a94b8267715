"""Responses that are kept: for the next turn, for those who lost their stream, and for nobody else."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from llamabox.server.api.openai.responses.storage.log import EventLog
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.http.shelf import MAX_AGE, Shelf
from llamabox.server.listening.config import ListenConfig
from tests.chat.templates import HERMES
from tests.server.api.responses.test_events import read_events
from tests.server.fake_client import FakeTextClient, delta, finished, saying, started
from tests.server.harness import Running, running

ROUTE = "/v1/responses"
MODEL = ModelConfig(chat_template=HERMES)


def prompts(server: Running[FakeTextClient]) -> list[str]:
    return ["".join(str(piece) for piece in submit.prompt) for submit in server.client.submits]


def client(server: Running[FakeTextClient], key: str = "none") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=key, max_retries=0)


def test_the_next_turn_begins_with_the_last_one_and_without_its_instructions() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(saying("Hello", " there")), MODEL) as server, client(server) as api:
            first = await api.responses.create(model="m", input="Hi", instructions="Be brief.")
            second = await api.responses.create(model="m", input="Go on", previous_response_id=first.id)
            assert second.previous_response_id == first.id
            third = await api.responses.create(model="m", input="And?", previous_response_id=second.id)
            one, two, three = prompts(server)
            assert "Be brief." in one
            assert "Be brief." not in two
            order = [three.index(text) for text in ("Hi", "Hello there", "Go on", "And?")]
            assert order == sorted(order)
            items = await api.responses.input_items.list(third.id, order="asc", limit=2)
            told = [item.content[0].text for item in items.data]
            assert told == ["Hi", "Hello there"]
            assert items.has_more
            rest = await api.responses.input_items.list(third.id, order="asc", after=items.last_id)
            assert [item.content[0].text for item in rest.data] == ["Go on", "Hello there", "And?"]
            again = await api.responses.retrieve(first.id)
            assert again == first
            reference: Any = [{"type": "item_reference", "id": first.output[0].id}, {"role": "user", "content": "So?"}]
            await api.responses.create(model="m", input=reference, store=False)
            assert "Hello there" in prompts(server)[-1]

    asyncio.run(scene())


def test_what_is_not_there_is_told_by_the_clients_own_classes() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(saying("Hi")), MODEL) as server, client(server) as api:
            unstored = await api.responses.create(model="m", input="Hi", store=False)
            assert unstored.store is False
            for call in (api.responses.retrieve(unstored.id), api.responses.delete("resp_none")):
                with pytest.raises(openai.NotFoundError, match="there is no response"):
                    await call
            with pytest.raises(openai.BadRequestError, match="previous_response_id"):
                await api.responses.create(model="m", input="Hi", previous_response_id=unstored.id)
            kept = await api.responses.create(model="m", input="Hi")
            with pytest.raises(openai.BadRequestError, match="background"):
                await api.responses.cancel(kept.id)
            await api.responses.delete(kept.id)
            with pytest.raises(openai.NotFoundError):
                await api.responses.retrieve(kept.id)
            with pytest.raises(openai.BadRequestError, match=r"input\[0\]\.id"):
                await api.responses.create(model="m", input=[{"type": "item_reference", "id": "msg_none"}])
            reply = await server.http.get(f"{ROUTE}/resp_none/input_items?limit=x")
            assert reply.status_code == 404

    asyncio.run(scene())


def test_each_key_has_responses_of_its_own_and_without_a_store_there_are_none() -> None:
    async def scene() -> None:
        keys = ListenConfig(api_keys=frozenset({"one", "two"}))
        async with (
            running(FakeTextClient(saying("Hi")), MODEL, keys) as server,
            client(server, "one") as one,
            client(server, "two") as two,
        ):
            mine = await one.responses.create(model="m", input="Hi")
            assert (await one.responses.retrieve(mine.id)).id == mine.id
            with pytest.raises(openai.NotFoundError):
                await two.responses.retrieve(mine.id)
        async with (
            running(FakeTextClient(saying("Hi")), ModelConfig(responses_store=0)) as server,
            client(server) as api,
        ):
            told = await api.responses.create(model="m", input="Hi")
            assert told.store is False
            with pytest.raises(openai.BadRequestError, match="--responses-store"):
                await api.responses.create(model="m", input="Hi", previous_response_id=told.id)
            with pytest.raises(openai.BadRequestError, match="--responses-store"):
                await api.responses.create(model="m", input="Hi", background=True)

    asyncio.run(scene())


def test_the_events_of_a_stream_can_be_had_again_from_any_place() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(saying("Hello", " there")), MODEL) as server:
            streamed = await server.http.post(ROUTE, json={"input": "Hi", "stream": True})
            events = read_events(streamed.text)
            path = f"{ROUTE}/{events[0].response.id}?stream=true"
            for after in range(-1, len(events) + 1):
                again = await server.http.get(f"{path}&starting_after={after}")
                assert read_events(again.text) == events[after + 1 :]

    asyncio.run(scene())


def test_a_response_in_the_background_runs_on_without_its_client() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(), MODEL) as server, client(server) as api:
            begun = await api.responses.create(model="m", input="Hi", background=True)
            assert begun.status == "queued"
            generation = await server.client.submitted()
            submit = generation.submit
            generation.push(started(submit), delta(submit, "Hello", 1))
            following = asyncio.create_task(server.http.get(f"{ROUTE}/{begun.id}?stream=true"))
            while (await api.responses.retrieve(begun.id)).status != "in_progress":
                await asyncio.sleep(0)
            generation.push(delta(submit, " there", 2), finished(submit, 2))
            events = read_events((await following).text)
            assert events[-1].response.output_text == "Hello there"
            assert (await api.responses.retrieve(begun.id)).output_text == "Hello there"

            other = await api.responses.create(model="m", input="Hi", background=True)
            generation = await server.client.submitted()
            generation.push(started(generation.submit), delta(generation.submit, "Hello", 1))
            ended = await api.responses.cancel(other.id)
            assert ended.status == "cancelled"
            await generation.aborted.wait()
            assert (await api.responses.cancel(other.id)).status == "cancelled"

    asyncio.run(scene())


def test_a_shelf_is_bounded_in_bytes_and_age() -> None:
    now = [0.0]
    shelf = Shelf[str](100, clock=lambda: now[0])
    assert not shelf.put("", "large", "x", 101)
    for name in ("a", "b", "c"):
        assert shelf.put("", name, name, 40)
    assert [shelf.get("", name) for name in ("a", "b", "c")] == [None, "b", "c"]
    assert shelf.get("somebody", "b") is None
    assert list(shelf.all_of("")) == ["c", "b"]
    assert shelf.n_bytes == 80
    now[0] = MAX_AGE / 2
    assert shelf.get("", "b") == "b"
    now[0] = MAX_AGE + 1
    assert (shelf.get("", "c"), shelf.get("", "b"), shelf.n_bytes) == (None, "b", 40)
    assert shelf.drop("", "b")
    assert not shelf.drop("", "b")
    assert shelf.n_bytes == 0


def test_a_log_takes_a_fraction_of_its_events() -> None:
    log, n_bytes = EventLog(), 0
    for n in range(1000):
        event = b'event: response.output_text.delta\ndata: {"item_id":"msg_1","sequence_number":%d}\n\n' % n
        n_bytes += len(event)
        log.add(event)
    log.end()
    assert log.n_bytes < n_bytes / 5
