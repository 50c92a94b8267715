"""Media in the inputs of vectors: every form reaches the worker in place, and what cannot be embedded is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from llamabox.engine.request import PromptText
from llamabox.server.hosted.config import ModelConfig
from llamabox.wire.text_config import ModelInfo
from tests.server.api.media.test_media_in_prompts import BARE, MARKER, image, sound, user
from tests.server.fake_client import INFO, FakeTextClient
from tests.server.fake_media import SEES_AND_HEARS, SOUND_OF_TEN, FakeMediaDesk, picture
from tests.server.harness import text_app

EMBEDS = replace(INFO, media=SEES_AND_HEARS, embeds_media=True, pooling="last", n_vector=2)
OPENAI, NATIVE = "/v1/embeddings", "/embeddings"


class Server:
    """One that makes vectors, and what came of the requests to it."""

    def __init__(self, info: ModelInfo = EMBEDS, template: str = BARE) -> None:
        self.client = FakeTextClient(info=info)
        self.desk = FakeMediaDesk()
        config = ModelConfig(enable_embeddings=True, media_marker=MARKER, chat_template=template)
        self.http = TestClient(text_app(self.client, config, media=self.desk))

    def prompts(self, path: str, body: dict[str, Any]) -> list[PromptText]:
        """What the worker was sent."""
        reply = self.http.post(path, json=body)
        assert reply.status_code == 200, reply.text
        items = reply.json()["data"] if path == OPENAI else reply.json()
        assert [item["index"] for item in items] == list(range(len(items)))
        return self.client.embedded

    def refusal(self, body: dict[str, Any]) -> str:
        reply = self.http.post(OPENAI, json=body)
        assert reply.status_code == 400, reply.text
        assert not self.client.embedded
        assert not self.desk.read_sources
        message = reply.json()["error"]["message"]
        assert isinstance(message, str)
        return message


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


MIXED = {"prompt_string": f"a{MARKER}b", "multimodal_data": ["4"]}
FORMS: list[tuple[Any, list[PromptText]]] = [
    (MIXED, [["a", picture(4), "b"]]),
    ([MIXED, "c", [1, 2], {"prompt_string": "d"}], [["a", picture(4), "b"], ["c"], [1, 2], ["d"]]),
    ({"content": [text("a"), text("b"), image("4"), text("c")]}, [["ab", picture(4), "c"]]),
    ([{"content": [image("4"), sound("x")]}, {"content": [text("e")]}], [[picture(4), SOUND_OF_TEN], ["e"]]),
]


@pytest.mark.parametrize(("given", "sent"), FORMS)
def test_an_input_reaches_the_worker_with_its_media_in_place(given: Any, sent: list[PromptText]) -> None:
    for path in (OPENAI, NATIVE):
        for name in ("input", "content"):
            assert Server().prompts(path, {name: given}) == sent


def test_a_conversation_is_one_input_by_the_model_s_template() -> None:
    body = {"messages": [user("a", image("3"), "b"), {"role": "assistant", "content": "c"}]}
    assert Server().prompts(OPENAI, body) == [["user:a", picture(3), "b;assistant:c;"]]


def test_a_conversation_s_answer_is_begun_only_where_that_is_asked_for() -> None:
    template = BARE + "{% if add_generation_prompt %}assistant:{% endif %}"
    for asked, end in (({}, ""), ({"add_generation_prompt": True}, "assistant:")):
        assert Server(template=template).prompts(OPENAI, {"messages": [user("a")], **asked}) == [["user:a;" + end]]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"media": None, "embeds_media": False}, "start it with `--mmproj"),
        ({"media": replace(SEES_AND_HEARS, has_vision=False)}, "takes sound alone"),
        ({"embeds_media": False}, "words see those behind them"),
        ({"embeds_media": False, "pooling": "rank"}, "a reranker scores texts alone"),
    ],
)
def test_media_of_which_no_vector_can_be_made_are_refused_before_they_are_read(
    changed: dict[str, Any], words: str
) -> None:
    server = Server(replace(EMBEDS, **changed))
    for body, field in (
        ({"input": [{"content": [image("1")]}]}, "input[0].content[0].image_url.url"),
        ({"messages": [user(image("1"))]}, "messages[0].content[0].image_url.url"),
    ):
        message = server.refusal(body)
        assert words in message
        assert field in message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": {"prompt_string": "no marker", "multimodal_data": ["4"]}}, "0 media markers for the 1 entries"),
        ({"input": {"content": [{"type": "video_url", "video_url": {"url": "x"}}]}}, "video input is not supported"),
        ({"input": {"content": [{"type": "smell"}]}}, "input.content[0]"),
        ({"input": {"content": [image("1")] * (INFO.n_ctx + 1)}}, "at most"),
        ({"input": "a", "messages": [user("b")]}, '"input"; send one of them'),
        ({"messages": []}, '"messages" must not be empty'),
    ],
)
def test_what_is_wrong_is_named(body: dict[str, Any], words: str) -> None:
    assert words in Server().refusal(body)
