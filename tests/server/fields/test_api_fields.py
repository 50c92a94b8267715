"""docs/api.md names every field that OpenAI's own client knows, and the server does what stands there."""

from __future__ import annotations

import base64
import json
import re
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pytest
from openai.types import completion_create_params as completion
from openai.types import embedding_create_params as embedding
from openai.types import image_edit_params as edit
from openai.types import image_generate_params as generate
from openai.types.audio import transcription_create_params as transcription
from openai.types.chat import completion_create_params as chat
from openai.types.responses import response_create_params as responses
from starlette.testclient import TestClient

from llamabox.engine.events import Vector
from llamabox.server.hosted.config import ModelConfig
from tests.server.api.images.test_route import png
from tests.server.fake_client import INFO, FakeTextClient, saying
from tests.server.fake_images import IMAGES, FakeImageClient
from tests.server.harness import image_app, text_app

HEADING = "Fields of POST "

DOCUMENT = Path(__file__).parents[3] / "docs" / "api.md"

PICTURE = base64.b64encode(png("lime")).decode()

TEMPLATE = "{{ reasoning_effort }} {{ verbosity }} {% for message in messages %}{{ message.content }}{% endfor %}"

SILENT = "{{ messages[0].content }} {{ messages[0].reasoning_effort }} {{ 'verbosity' }} verbosity, thinking"
"""Names the variables, and reads none of them."""

ROUTES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "/v1/chat/completions": (
        [chat.CompletionCreateParamsNonStreaming, chat.CompletionCreateParamsStreaming],
        {"messages": [{"role": "user", "content": "Hi"}], "model": "m"},
    ),
    "/v1/completions": (
        [completion.CompletionCreateParamsNonStreaming, completion.CompletionCreateParamsStreaming],
        {"prompt": "Hi", "model": "m"},
    ),
    "/v1/responses": (
        [responses.ResponseCreateParamsNonStreaming, responses.ResponseCreateParamsStreaming],
        {"input": "Hi", "model": "m"},
    ),
    "/v1/embeddings": ([embedding.EmbeddingCreateParams], {"input": "Hi", "model": "m"}),
    "/v1/images/generations": (
        [generate.ImageGenerateParamsNonStreaming, generate.ImageGenerateParamsStreaming],
        {"prompt": "a cat", "model": "m"},
    ),
    "/v1/images/edits": (
        [edit.ImageEditParamsNonStreaming, edit.ImageEditParamsStreaming],
        {"prompt": "a cat", "model": "m", "image": PICTURE},
    ),
    "/v1/audio/transcriptions": (
        [transcription.TranscriptionCreateParamsNonStreaming, transcription.TranscriptionCreateParamsStreaming],
        {},
    ),
}
"""The types of the client, and the least that a request must have."""

USUAL: dict[str, list[Any]] = {
    "frequency_penalty": [0.5, -2, None],
    "presence_penalty": [0.5, None],
    "temperature": [0, 2],
    "top_p": [0.5],
    "top_logprobs": [],  # needs logprobs beside it
    "logprobs": [None],
    "n": [1, None],
    "seed": [7, -7, 2**53 - 1, 2**63 - 1, 2**64 - 1],
    "max_tokens": [3],
    "max_completion_tokens": [3],
    "logit_bias": [{"5": -100}, {}],
    "stop": ["a", ["a", "b"]],
    "stream_options": [{"include_usage": True}],
    "metadata": [{"a": "b"}],
    "prediction": [
        {"type": "content", "content": "Hi"},
        {"type": "content", "content": [{"type": "text", "text": "Hi"}]},
        None,
    ],
    "prompt_cache_options": [{"mode": "explicit", "ttl": "30m"}],
    "prompt_cache_key": ["key"],
    "safety_identifier": ["me"],
    "user": ["me"],
    "dimensions": [8],
    "partial_images": [0, None],
    "size": ["512x512"],
    "response_format": [{"type": "text"}, {"type": "json_object"}],
    "mask": [PICTURE],
    "function_call": ["auto", "none", None],
    "instructions": ["Be brief."],
    "max_output_tokens": [3],
    "reasoning": [{"effort": "low", "summary": "auto"}, {}],
    "text": [{"format": {"type": "text"}, "verbosity": "low"}, {"format": {"type": "json_object"}}],
}
"""Lawful values of fields whose types do not say which there are."""

ASKING: dict[str, list[Any]] = {
    "audio": [{"voice": "alloy", "format": "wav"}],
    "functions": [[{"name": "f"}]],
    "function_call": [{"name": "f"}],
    "moderation": [{}],
    "tools": [[{"type": "function", "function": {"name": "f"}}]],
    "tool_choice": ["required", {"type": "function", "function": {"name": "f"}}],
    "web_search_options": [{}],
    "conversation": ["conv_1"],
    "context_management": [[{"type": "compaction"}]],
    "prompt": [{"id": "pmpt_1"}],
    "best_of": [2],
    "suffix": ["end"],
    "stream_options.include_obfuscation": [True],
    "frame_count": [9],
    "frame_duration_ms": [200],
    "output_compression": [50],
    "svg": [{"model": "m"}],
    "markup": [PICTURE],
}
"""Values of refused fields that ask for something."""

WRONG: dict[str, list[Any]] = {
    "messages": [5],
    "stream_options": [5],
    "model": [5],
    "logprobs": ["x"],
    "n": [0, "x"],
    "reasoning": [5, {"effort": "x"}],
    "text": [5, {"format": {"type": "x"}}, {"verbosity": 5}],
}
"""Of fields for which an object with an array in it is not enough of a mistake."""


@dataclass(frozen=True)
class Row:
    """A line of the tables. `neutral` are the values of a refused field that ask for nothing."""

    route: str
    field: str
    fate: str
    neutral: tuple[Any, ...]
    elsewhere: bool  # refused with templates that have no variable for it


def rows() -> Iterator[Row]:
    """Of the sections "Fields of POST …"; a line may name several fields."""
    route = ""
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
            route = heading.removeprefix(HEADING) if heading.startswith(HEADING) else ""
        elif route and line.startswith("| `"):
            found = re.fullmatch(r"\| (`.*?) \| (done|accepted|refused)(?: \((.*)\))? \|(.*)\|", line)
            assert found is not None, f"what becomes of it? {line}"
            names, fate, neutral, how = found.groups()
            values = tuple(json.loads(value) for value in re.findall(r"`([^`]+)`", neutral or ""))
            for field in re.findall(r"`([\w.]+)`", names):
                yield Row(route, field, fate, values, "refused" in how)


ROWS = {(row.route, row.field): row for row in rows()}


def hints(route: str) -> dict[str, list[Any]]:
    """Every field of the client's types for a route with its types; those of stream_options by name as well."""
    found: dict[str, list[Any]] = {}
    for kind in ROUTES[route][0]:
        for name, hint in typing.get_type_hints(kind).items():
            found.setdefault(name, []).append(hint)
            if name == "stream_options":
                [options] = [part for part in typing.get_args(hint) if hasattr(part, "__required_keys__")]
                for inner, inner_hint in typing.get_type_hints(options).items():
                    found.setdefault(f"{name}.{inner}", []).append(inner_hint)
    return found


def literals(hint: Any) -> list[Any]:
    """All values that a type names; both of bool; of a list the lists of one."""
    if hint is bool:
        return [True, False]
    if typing.get_origin(hint) is Literal:
        return list(typing.get_args(hint))
    inner = [value for part in typing.get_args(hint) for value in literals(part)]
    return [[value] for value in inner] if typing.get_origin(hint) is list else inner


@pytest.mark.parametrize("route", ROUTES)
def test_every_field_of_the_client_stands_in_the_document_and_no_other(route: str) -> None:
    assert sorted(hints(route)) == sorted(field for found, field in ROWS if found == route)


class Embedding:
    """One vector."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[list[Vector]]:
        yield [Vector("r", 0, 1, np.ones(8, np.float32).tobytes())]


class EmbeddingClient(FakeTextClient):
    """Answers every question with the same vector."""

    def embed(self, prompts: object) -> Embedding:
        return Embedding()


def browser(route: str, template: str) -> TestClient:
    if route.startswith("/v1/images/"):
        images = replace(IMAGES, max_width=2048, max_height=2048)
        return TestClient(image_app(FakeImageClient(), images=images))
    config = ModelConfig(enable_embeddings=True, chat_template=template)
    if route == "/v1/embeddings":
        return TestClient(text_app(EmbeddingClient(info=replace(INFO, pooling="mean", n_vector=8)), config))
    return TestClient(text_app(FakeTextClient(saying("{}"), info=replace(INFO, n_slots=4)), config))


Browsers = Callable[[str, str], TestClient]


@pytest.fixture(scope="module")
def browsers() -> Iterator[Browsers]:
    """A server for each route and template."""
    with ExitStack() as stack:
        yield cache(lambda route, template: stack.enter_context(browser(route, template)))


def status(http: TestClient, row: Row, value: Any) -> tuple[int, str]:
    body = dict(ROUTES[row.route][1])
    outer, _, inner = row.field.partition(".")
    body[outer] = {inner: value} if inner else value
    reply = http.post(row.route, json=body)
    return reply.status_code, "" if reply.status_code == 200 else reply.json()["error"]["message"]


WITH_MORE = [("tool_choice", "required")]
"""What is lawful beside another field alone."""


def lawful(row: Row) -> list[Any]:
    found = [value for hint in hints(row.route)[row.field] for value in literals(hint)]
    if row.fate == "done":
        found = [value for value in found if (row.field, value) not in WITH_MORE]
    if row.field not in ("messages", "model", "prompt", "input", "image"):
        found += USUAL.get(row.field, [])
    return found


IN_JSON = [row for row in ROWS.values() if row.route != "/v1/audio/transcriptions"]
"""Of routes that take JSON; forms are tested in tests/server/api/audio/."""


@pytest.mark.parametrize("row", IN_JSON, ids=lambda row: f"{row.route} {row.field}")
def test_the_server_does_what_the_document_says(row: Row, browsers: Browsers) -> None:
    http = browsers(row.route, TEMPLATE)
    assert status(http, row, None)[0] == 200 or row.field in ROUTES[row.route][1]
    if row.fate == "refused":
        for value in row.neutral:
            assert status(http, row, value) == (200, "")
        asking = [*ASKING.get(row.field, []), *(value for value in lawful(row) if value not in row.neutral)]
        assert asking, "a value that asks for something"
        for value in asking:
            code, message = status(http, row, value)
            assert (code, f"'{row.field}'" in message) == (400, True), (value, message)
        return
    for value in lawful(row):
        assert status(http, row, value) == (200, ""), value
    if row.fate == "done":
        for value in WRONG.get(row.field, [{"x": [1]}]):
            code, message = status(http, row, value)
            assert code == 400, value
            assert row.field.rpartition(".")[2] in message


@pytest.mark.parametrize(
    "row", [row for row in ROWS.values() if row.elsewhere], ids=lambda row: f"{row.route} {row.field}"
)
def test_what_a_template_cannot_pass_on_is_refused_by_name(row: Row, browsers: Browsers) -> None:
    http = browsers(row.route, SILENT)
    accepted = [value for value in lawful(row) if status(http, row, value)[0] == 200]
    refused = [value for value in lawful(row) if f"'{row.field}'" in status(http, row, value)[1]]
    assert accepted == {"reasoning_effort": ["none"], "verbosity": ["medium"]}[row.field] * 2
    assert len(accepted) + len(refused) == len(lawful(row))
