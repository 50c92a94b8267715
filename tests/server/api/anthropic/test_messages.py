"""POST /v1/messages and what stands under it, as Anthropic's own client sees it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import anthropic
import httpx
import pytest
from anthropic import types

from llamabox.chat.config import ChatConfig
from llamabox.engine.events import FinishReason, PrefillStart, StopType
from llamabox.errors import ContextExceeded, LlamaboxError, QueueFull, ServerFault, Unavailable
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.listening.config import ListenConfig
from tests.chat.templates import HERMES
from tests.server.fake_client import INFO, FakeTextClient, delta, finished, saying, started
from tests.server.harness import Running, running

HI: list[Any] = [{"role": "user", "content": "Hi"}]
ASKED: dict[str, Any] = {"model": "m", "max_tokens": 10, "messages": HI}

ROOMY = replace(INFO, n_ctx=100_000)

Scene = Callable[[Running[FakeTextClient], anthropic.AsyncAnthropic], Awaitable[None]]


def play(scene: Scene, client: FakeTextClient, *configs: ListenConfig | ModelConfig, retries: int = 0) -> None:
    async def talk() -> None:
        async with (
            running(client, *configs) as server,
            anthropic.AsyncAnthropic(
                base_url=f"http://127.0.0.1:{server.port}", api_key="key", max_retries=retries
            ) as asking,
        ):
            await scene(server, asking)

    asyncio.run(talk())


def prompts(bodies: list[dict[str, Any]], *configs: ModelConfig) -> list[str]:
    """What the model is given for each body."""
    client = FakeTextClient(saying("a"), info=ROOMY)

    async def scene(server: Running[FakeTextClient], asking: anthropic.AsyncAnthropic) -> None:
        for body in bodies:
            reply = await server.http.post("/v1/messages", json={**ASKED, **body})
            assert reply.status_code == 200, reply.text

    play(scene, client, *configs)
    return ["".join(map(str, submit.prompt)) for submit in client.submits]


def refusals(bodies: list[dict[str, Any]], *configs: ModelConfig) -> list[str]:
    """The message of each body's 400."""
    found: list[str] = []

    async def scene(server: Running[FakeTextClient], asking: anthropic.AsyncAnthropic) -> None:
        for body in bodies:
            reply = await server.http.post("/v1/messages", json={**ASKED, **body})
            assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error"), reply.text
            found.append(reply.json()["error"]["message"])

    play(scene, FakeTextClient(saying("a"), info=ROOMY), *configs)
    return found


def test_a_message_is_the_same_plain_and_streamed() -> None:
    async def scene(server: Running[FakeTextClient], asking: anthropic.AsyncAnthropic) -> None:
        plain = await asking.messages.create(**ASKED)
        async with asking.messages.stream(**ASKED) as stream:
            kinds = [event.type async for event in stream if event.type != "text"]
            streamed = await stream.get_final_message()
        assert plain._request_id
        assert kinds == [
            *("message_start", "content_block_start"),
            *["content_block_delta"] * 3,
            *("content_block_stop", "message_delta", "message_stop"),
        ]
        for message in (plain, streamed):
            [block] = message.content
            assert isinstance(block, anthropic.types.TextBlock)
            assert (block.text, message.stop_reason, message.stop_sequence) == ("Hello wörld", "max_tokens", None)
            usage = message.usage
            assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (5, 3, 3)
            assert message.id.startswith("msg_")

    play(scene, FakeTextClient(saying("Hel", "lo ", "wörld", n_cached=3)))


def test_the_first_event_comes_before_the_prompt_is_computed_and_pings_after_it() -> None:
    async def scene(server: Running[FakeTextClient], asking: anthropic.AsyncAnthropic) -> None:
        opening = asyncio.create_task(asking.messages.create(**ASKED, stream=True))
        generation = await server.client.submitted()
        submit = generation.submit
        generation.push(PrefillStart(submit.request_id, 0, 8, 3))
        stream = await opening
        first = await anext(stream)
        assert isinstance(first, anthropic.types.RawMessageStartEvent)
        assert (first.message.usage.input_tokens, first.message.usage.cache_read_input_tokens) == (5, 3)
        await asyncio.sleep(0.1)
        generation.push(started(submit, n_cached=3), delta(submit, "a", 1), finished(submit, 1, n_cached=3))
        assert [event.type async for event in stream][-1] == "message_stop"
        async with server.http.stream("POST", "/v1/messages", json={**ASKED, "stream": True}) as reply:
            generation = await server.client.submitted()
            lines = reply.aiter_lines()
            assert [await anext(lines) for _ in range(3)] == ["event: ping", 'data: {"type":"ping"}', ""]
            generation.push(started(generation.submit), finished(generation.submit, 0))

    play(scene, FakeTextClient(), ModelConfig(ping_interval=0.03))


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (ContextExceeded(n_prompt_tokens=300, n_ctx=256), anthropic.BadRequestError, "invalid_request_error"),
        (Unavailable("loading"), anthropic.InternalServerError, "overloaded_error"),
        (QueueFull("full", retry_after=3), anthropic.InternalServerError, "overloaded_error"),
        (ServerFault("broken"), anthropic.InternalServerError, "api_error"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_before_the_headers_and_amid_a_stream(error: LlamaboxError, kind: type[Any], told: str) -> None:
    async def scene(server: Running[FakeTextClient], asking: anthropic.AsyncAnthropic) -> None:
        opening = asyncio.create_task(asking.messages.create(**ASKED))
        (await server.client.submitted()).fail(error)
        with pytest.raises(kind) as failed:
            await opening
        assert failed.value.body["error"]["type"] == told
        assert failed.value.request_id == failed.value.body["request_id"]
        if isinstance(error, ContextExceeded):
            assert failed.value.body["error"]["message"] == "prompt is too long: 300 tokens > 256 maximum"
        streaming = asyncio.create_task(asking.messages.create(**ASKED, stream=True))
        generation = await server.client.submitted()
        generation.push(started(generation.submit), delta(generation.submit, "a", 1))
        generation.fail(error)
        with pytest.raises(anthropic.APIStatusError) as amid:
            [event async for event in await streaming]
        assert amid.value.body["error"]["type"] == told

    play(scene, FakeTextClient())


def test_the_middleware_and_the_router_speak_anthropics_words_under_its_paths_alone() -> None:
    async def scene(server: Running[FakeTextClient], asking: anthropic.AsyncAnthropic) -> None:
        def told(reply: httpx.Response) -> tuple[int, str]:
            value = reply.json()
            assert value["request_id"] == reply.headers["request-id"]
            return reply.status_code, value["error"]["type"]

        key = {"x-api-key": "key"}
        http = server.http
        assert told(await http.post("/v1/messages", json=ASKED)) == (401, "authentication_error")
        assert told(await http.get("/v1/messages", headers=key)) == (405, "invalid_request_error")
        assert told(await http.post("/v1/messages/batches", headers=key)) == (404, "not_found_error")
        large = await http.post("/v1/messages", headers=key, content=b" " * 2001)
        assert told(large) == (413, "request_too_large")
        other = await http.post("/v1/chat/completions", json={})
        assert (other.status_code, "request-id" in other.headers) == (401, False)
        assert "detail" in other.json()
        assert (await asking.messages.create(**ASKED)).content
        server.client.state = server.client.state.STOPPED
        assert told(await http.post("/v1/messages", headers=key, json=ASKED)) == (503, "overloaded_error")

    play(scene, FakeTextClient(saying("a")), ListenConfig(api_keys=("key",), max_body=2000))


def test_the_client_comes_again_after_a_503() -> None:
    script = saying("a")
    answers: list[LlamaboxError] = [Unavailable("restarting", retry_after=0), QueueFull("full", retry_after=0)]
    client = FakeTextClient(lambda submit: answers.pop() if answers else script(submit))

    async def scene(server: Running[FakeTextClient], asking: anthropic.AsyncAnthropic) -> None:
        assert (await asking.messages.create(**ASKED)).content
        assert len(client.submits) == 3

    play(scene, client, retries=2)


def test_what_ends_an_answer() -> None:
    ends: list[tuple[Any, tuple[str, str | None]]] = [
        ({"reason": FinishReason.STOP}, ("end_turn", None)),
        ({"reason": FinishReason.STOP, "stop_type": StopType.WORD, "stopping_word": "END"}, ("stop_sequence", "END")),
        ({"reason": FinishReason.STOP, "stop_type": StopType.WORD, "stopping_word": "ours"}, ("end_turn", None)),
        ({"truncated": True}, ("model_context_window_exceeded", None)),
        ({}, ("max_tokens", None)),
    ]

    async def scene(server: Running[FakeTextClient], asking: anthropic.AsyncAnthropic) -> None:
        for changed, expected in ends:
            asked = {**ASKED, "max_tokens": 900, "stop_sequences": ["END"]}
            opening = asyncio.create_task(asking.messages.create(**asked))
            generation = await server.client.submitted()
            submit = generation.submit
            last = finished(submit, 248)
            for name, value in changed.items():
                setattr(last, name, value)
            generation.push(started(submit), delta(submit, "a", 248), last)
            message = await opening
            assert (message.stop_reason, message.stop_sequence) == expected

    play(scene, FakeTextClient())


def test_tokens_are_counted_of_the_prompt_that_would_be_charged() -> None:
    client = FakeTextClient(saying("a"))
    body: dict[str, Any] = {"model": "m", "system": "Be brief.", "messages": HI}

    async def scene(server: Running[FakeTextClient], asking: anthropic.AsyncAnthropic) -> None:
        assert (await asking.messages.count_tokens(**body)).input_tokens == 3
        await asking.messages.create(**body, max_tokens=1)
        [counted] = client.asked
        assert counted.prompt == client.submits[0].prompt  # type: ignore[attr-defined]

    play(scene, client)


def test_the_list_of_models_is_anthropics_too() -> None:
    async def scene(server: Running[FakeTextClient], asking: anthropic.AsyncAnthropic) -> None:
        [model] = [model async for model in asking.models.list()]
        assert model == await asking.models.retrieve("tiny.gguf")
        anthropic.types.ModelInfo.model_validate(model.to_dict(mode="python"))
        assert (model.id, model.display_name, model.max_input_tokens) == ("tiny.gguf", "tiny.gguf", 256)

    play(scene, FakeTextClient(saying("a")))


def test_the_document_names_every_field_of_the_client() -> None:
    document = (Path(__file__).parents[4] / "docs" / "api.md").read_text(encoding="utf-8")
    section = document.partition("\n## Messages of Anthropic's API\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section))
    params = (types.message_create_params.MessageCreateParamsStreaming, types.MessageCountTokensParams)
    fields = {name for one in params for name in get_type_hints(one)}
    assert {"max_tokens", "thinking"} <= fields
    assert fields - named == set()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"stop_sequences": "END"}, "stop_sequences"),
    ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "deep"}}, "thinking.type"),
    ({"thinking": {"type": "adaptive", "display": "all"}}, "thinking.display"),
    ({"output_config": {"effort": "none"}}, "output_config.effort"),
    ({"output_config": {"format": {"type": "text"}}}, "output_config.format.type"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ({"output_format": {"type": "json_schema", "schema": 3}}, "output_format.schema"),
    ({"metadata": "me"}, "metadata"),
    ({"service_tier": "priority"}, "service_tier"),
    ({"speed": "faster"}, "speed"),
    ({"mcp_servers": [{"url": "u"}]}, "mcp_servers"),
    ({"container": "c"}, "container"),
    ({"n": 2}, "n"),
    ({"top_p": "x"}, "top_p"),
    ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].name"),
    (
        {"tools": [{"name": "w", "type": "web_search_1"}, {"name": "a", "input_schema": {"type": "array"}}]},
        "tools[1].input_schema.type",
    ),
    ({"tools": [{"name": "a", "input_schema": {}}] * 2}, "tools[1].name"),
    (
        {"tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}, "tools": [{"name": "a", "input_schema": {}}]},
        "tool_choice.disable_parallel_tool_use",
    ),
]


def test_wrong_fields_are_named_as_the_client_wrote_them() -> None:
    messages = refusals([body for body, _ in WRONG])
    assert [message.partition("'")[2].partition("'")[0] for message in messages] == [field for _, field in WRONG]


THINKER = "{{ enable_thinking }} {{ reasoning_effort }} {% for m in messages %}{{ m.content }}{% endfor %}"


def test_thinking_and_effort_are_variables_of_the_template() -> None:
    bodies: list[dict[str, Any]] = [
        {},
        {"thinking": {"type": "adaptive"}},
        {"thinking": {"type": "enabled", "budget_tokens": 50}},
        {"thinking": {"type": "disabled"}},
        {"thinking": {"type": "between_tools"}, "output_config": {"effort": "max"}},
    ]
    told = prompts(bodies, ModelConfig(chat_template=THINKER))
    assert [text.removesuffix(" Hi") for text in told] == [" ", "True ", "True ", "False ", "False max"]
    assert prompts([{"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}])  # ChatML has neither


def test_a_large_body_is_read_as_a_small_one_is() -> None:
    """Beside its template, in another process: pictures aside, which come back to this one."""
    tools: list[Any] = [{"type": "web_search_20250305", "name": "web_search"}, {"name": "look", "input_schema": {}}]
    filler = {"name": "filler", "input_schema": {"type": "object", "description": "x" * 70_000}}
    small, large = prompts([{"tools": tools, "system": "s"}, {"tools": [*tools, filler], "system": "s"}])
    assert small.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert large.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert "x" * 70_000 in large
    wrong = {"tools": [*tools, {**filler, "input_schema": {"type": "array", "description": "x" * 70_000}}]}
    assert refusals([wrong])[0].startswith("Field 'tools[2].input_schema.type'")


def test_what_is_left_out_is_told() -> None:
    async def scene(server: Running[FakeTextClient], asking: anthropic.AsyncAnthropic) -> None:
        tools = [{"type": "web_search_20250305", "name": "web_search"}]
        reply = await server.http.post("/v1/messages", json={**ASKED, "tools": tools})
        assert reply.status_code == 200
        assert "web_search (web_search_20250305)" in reply.headers["warning"]
        source = {"type": "text", "media_type": "text/plain", "data": "a"}
        document = {"type": "document", "source": source, "citations": {"enabled": True}}
        wished = {
            "messages": [{"role": "user", "content": [document]}],
            "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
        }
        reply = await server.http.post("/v1/messages", json={**ASKED, **wished})
        assert reply.status_code == 200
        assert "cite no documents" in reply.headers["warning"]
        assert "context_management" in reply.headers["warning"]
        document["citations"] = {"enabled": False}
        reply = await server.http.post("/v1/messages", json={**ASKED, **wished, "context_management": {"edits": []}})
        assert "warning" not in reply.headers

    play(scene, FakeTextClient(saying("a")))


def test_the_budget_of_thoughts_is_the_engine_s() -> None:
    asked: list[Any] = [
        None,
        {"type": "adaptive"},
        {"type": "enabled", "budget_tokens": 50},
        {"type": "disabled"},
        {"type": "between_tools"},
    ]
    client = FakeTextClient(saying("a"), info=replace(INFO, chat_template=HERMES))

    async def scene(server: Running[FakeTextClient], asking: anthropic.AsyncAnthropic) -> None:
        for thinking in asked:
            reply = await server.http.post("/v1/messages", json={**ASKED, "thinking": thinking})
            assert reply.status_code == 200, reply.text

    play(scene, client)
    budgets = [submit.params.thought and submit.params.thought.n_tokens for submit in client.submits]
    assert budgets == [None, None, 50, 0, 0]


@pytest.mark.parametrize("reasoning_format", ["auto", "none", "deepseek-legacy"])
def test_thoughts_have_blocks_whatever_chats_are_told(reasoning_format: str) -> None:
    info = replace(INFO, chat_template=HERMES)
    config = ModelConfig(chat=ChatConfig(reasoning_format=reasoning_format))

    async def scene(server: Running[FakeTextClient], asking: anthropic.AsyncAnthropic) -> None:
        plain = await asking.messages.create(**ASKED)
        async with asking.messages.stream(**ASKED) as stream:
            streamed = await stream.get_final_message()
        for message in (plain, streamed):
            assert [block.type for block in message.content] == ["thinking", "text"]

    play(scene, FakeTextClient(saying("<think>\n", "two", "\n</think>\n\n", "four"), info=info), config)
