"""Media from a request's body to the worker's prompt, over a desk and a worker that are fakes."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from llamabox.engine.request import PromptText
from llamabox.errors import InvalidRequest, Unavailable
from llamabox.media.source import MediaSource
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.hosted.site import Site
from llamabox.wire.questions import CountTokens
from llamabox.wire.text_config import MediaInfo
from tests.server.fake_client import INFO, FakeTextClient, saying
from tests.server.fake_media import SEES_AND_HEARS, SOUND_OF_TEN, FakeMediaDesk, picture
from tests.server.harness import text_app

MARKER = "<__media_of_the_test__>"
CHAT = "/v1/chat/completions"
BARE = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"


class Seen:
    """A server whose model sees and hears, and what came of the requests to it."""

    def __init__(self, media: MediaInfo | None = SEES_AND_HEARS, n_ctx: int = INFO.n_ctx) -> None:
        self.client = FakeTextClient(saying("yes"), info=replace(INFO, media=media, n_ctx=n_ctx))
        self.desk = FakeMediaDesk()
        config = ModelConfig(chat_template=BARE, media_marker=MARKER)
        self.http = TestClient(text_app(self.client, config, media=self.desk))

    @property
    def site(self) -> Site:
        site = self.http.app.state.site  # type: ignore[attr-defined]
        assert isinstance(site, Site)
        return site

    def prompts(self, path: str, body: dict[str, Any]) -> list[PromptText]:
        """What the worker was sent."""
        reply = self.http.post(path, json=body)
        assert reply.status_code == 200, reply.text
        return [submit.prompt for submit in self.client.submits]

    def refusal(self, path: str, body: dict[str, Any]) -> str:
        reply = self.http.post(path, json=body)
        assert reply.status_code == 400, reply.text
        assert not self.client.submits
        message = reply.json()["error"]["message"]
        assert isinstance(message, str)
        return message


def image(data: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data}}


def sound(data: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def user(*parts: Any) -> dict[str, Any]:
    return {
        "role": "user",
        "content": [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts],
    }


def test_a_chat_reaches_the_worker_with_its_media_in_place() -> None:
    messages = [
        user("a", image("3"), "b"),
        {"role": "assistant", "content": "ok"},
        user(image("1"), image("2"), sound("x")),
    ]
    [prompt] = Seen().prompts(CHAT, {"messages": messages})
    assert prompt == [
        *("user:a", picture(3), "b;assistant:ok;user:"),
        *(picture(1), picture(2), SOUND_OF_TEN, ";"),
    ]


def test_pictures_of_anthropics_messages_reach_the_worker_also_from_tools() -> None:
    def block(data: str) -> dict[str, Any]:
        return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}

    document = {"type": "document", "source": {"type": "content", "content": [block("3")]}}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "r"}, block("2")]}
    body = {
        "max_tokens": 8,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}, block("1"), document]},
            {"role": "assistant", "content": "ok"},
            {"role": "user", "content": [result]},
        ],
    }
    [prompt] = Seen().prompts("/v1/messages", body)
    told = "".join(part for part in prompt if isinstance(part, str))
    assert [part for part in prompt if not isinstance(part, str)] == [picture(1), picture(3), picture(2)]
    assert told.startswith("user:a<document>\n<document_content></document_content>\n</document>;assistant:ok;")
    counting = Seen()
    assert counting.http.post("/v1/messages/count_tokens", json=body).json() == {"input_tokens": 3}
    [counted] = [question for question in counting.client.asked if isinstance(question, CountTokens)]
    assert [part for part in counted.prompt if not isinstance(part, str)] == [picture(1), picture(3), picture(2)]
    message = Seen(media=None).refusal("/v1/messages", body)
    assert message.startswith("Field 'messages[0].content[1].source.data': image input is not supported")


def test_a_native_prompt_reaches_the_worker_with_its_media_in_place() -> None:
    mixed = {"prompt_string": f"a{MARKER}b", "multimodal_data": ["4"]}
    for path in ("/completion", "/v1/completions"):
        seen = ["a", picture(4), "b"]
        assert Seen().prompts(path, {"prompt": mixed}) == [seen]
        assert Seen().prompts(path, {"prompt": [mixed, "c", mixed]}) == [seen, ["c"], seen]


@pytest.mark.parametrize("n_bytes", [0, 200_000])
def test_a_large_body_is_read_like_a_small_one(n_bytes: int) -> None:
    seen = Seen(n_ctx=1 << 20)
    body = {"messages": [user("a" * n_bytes, image("3")), user("b")], "user": "u" * 70_000}
    assert seen.prompts(CHAT, body) == [["user:" + "a" * n_bytes, picture(3), ";user:b;"]]
    escaped = json.dumps(body).replace('"image_url"', '"image\\u005furl"')
    assert seen.http.post(CHAT, content=escaped).status_code == 200
    assert seen.client.submits[1].prompt == seen.client.submits[0].prompt


def test_texts_that_look_like_media_are_texts() -> None:
    text = f"{MARKER} <__media__> <image> [IMG] media0e"
    seen = Seen()
    assert seen.prompts(CHAT, {"messages": [user(text, image("3"))]}) == [[f"user:{text}", picture(3), ";"]]
    assert seen.prompts(CHAT, {"messages": [user(text)]})[1:] == [[f"user:{text};"]]


def test_apply_template_shows_the_marker_of_native_prompts() -> None:
    reply = Seen().http.post("/apply-template", json={"messages": [user("a", image("3"), "b")]})
    assert reply.json() == {"prompt": f"user:a{MARKER}b;"}


def test_a_count_is_of_the_prompt_with_its_media() -> None:
    seen = Seen()
    reply = seen.http.post(CHAT + "/input_tokens", json={"messages": [user("a", image("3"))]})
    assert reply.json() == {"input_tokens": 3, "object": "response.input_tokens"}
    assert seen.client.asked == [CountTokens(["user:a", picture(3), ";"])]


@pytest.mark.parametrize(
    ("media", "part", "words"),
    [
        (
            None,
            image("3"),
            "image input is not supported: this server has no multimodal projector; start it with `--mmproj",
        ),
        (None, sound("x"), "--mmproj"),
        (replace(SEES_AND_HEARS, has_audio=False), sound("x"), "takes pictures alone"),
        (replace(SEES_AND_HEARS, has_vision=False), image("3"), "takes sound alone"),
        (SEES_AND_HEARS, {"type": "video_url", "video_url": {"url": "x"}}, "video input is not supported"),
    ],
)
def test_what_the_model_cannot_take_is_refused_before_it_is_read(
    media: MediaInfo | None, part: dict[str, Any], words: str
) -> None:
    seen = Seen(media)
    for path in (CHAT, CHAT + "/input_tokens"):
        message = seen.refusal(path, {"messages": [user("a", part)]})
        assert words in message
        assert "messages[0].content[1]" in message
    assert not seen.desk.read_sources


def test_more_media_than_fit_are_refused_before_they_are_read() -> None:
    seen = Seen(n_ctx=8)
    assert "exceeds the available context size" in seen.refusal(CHAT, {"messages": [user(*[image("1")] * 9)]})
    assert not seen.desk.read_sources


def test_the_desk_s_refusal_is_the_reply() -> None:
    seen = Seen()
    seen.desk.error = InvalidRequest("Field 'messages[0].content[0].image_url.url': is no picture", field="x")
    assert "is no picture" in seen.refusal(CHAT, {"messages": [user(image("1"))]})
    seen.desk.error = Unavailable("no room")
    assert seen.http.post(CHAT, json={"messages": [user(image("1"))]}).status_code == 503


@pytest.mark.parametrize("padding", ["", "u" * 70_000])
def test_decoded_media_count_as_held_until_the_end_and_base64_is_not_held(padding: str) -> None:
    seen = Seen()
    held: list[int] = []
    sources: list[object] = []
    generate = seen.client.generate

    def watched(submit: Any) -> Any:
        held.append(seen.site.bodies.n_held)
        seen.desk.read_sources.clear()
        gc.collect()
        sources.extend(one for one in gc.get_objects() if isinstance(one, MediaSource) and one.data == "1000")
        return generate(submit)

    seen.client.generate = watched  # type: ignore[method-assign]
    body = {"messages": [user(image("1000"), image("2000"))], "stream": True, "user": padding}
    assert "[DONE]" in seen.http.post(CHAT, json=body).text
    assert held == [9000]
    assert sources == []
    assert seen.site.bodies.n_held == 0


def test_what_clients_are_told() -> None:
    for media, modalities in (
        (None, ["text"]),
        (SEES_AND_HEARS, ["text", "image", "audio"]),
        (replace(SEES_AND_HEARS, has_audio=False), ["text", "image"]),
    ):
        http = Seen(media).http
        props = http.get("/props").json()
        assert props["media_marker"] == MARKER
        assert props["modalities"] == {"vision": "image" in modalities, "audio": "audio" in modalities, "video": False}
        models = http.get("/v1/models").json()
        assert models["data"][0]["architecture"] == {"input_modalities": modalities, "output_modalities": ["text"]}
        assert ("multimodal" in models["models"][0]["capabilities"]) == (media is not None)


def test_two_servers_have_different_markers() -> None:
    shown = [TestClient(text_app(FakeTextClient())).get("/props").json() for _ in range(2)]
    assert shown[0]["media_marker"] != shown[1]["media_marker"]
