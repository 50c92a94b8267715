"""The anthropic client, unmodified, shows pictures to a model that sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.e2e.media.parts import PAIRS, SYSTEM, png, text_of
from tests.e2e.server_process import ServerProcess

DESCRIBE = "Describe the image."
GREETING = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello! How can I help you?"}]
CAMERA: Any = {"name": "take_picture", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "take_picture", "input": {}}


@pytest.fixture(scope="module")
def messages(server: ServerProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


def block(figure: str, background: str) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/png", "data": text_of(png(figure, background))}
    return {"type": "image", "source": source}


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def answer(client: anthropic.Anthropic, chat: list[dict[str, Any]], **fields: Any) -> str:
    """The text, which is the same streamed and plain, to a prompt that is as long as it was counted."""
    asked: dict[str, Any] = {"model": "m", "system": SYSTEM["content"], "messages": chat, **fields}
    more: dict[str, Any] = {"max_tokens": 24, "extra_body": {"temperature": 0}}
    plain = client.messages.create(**asked, **more)
    with client.messages.stream(**asked, **more) as stream:
        streamed = stream.get_final_message()
    texts = [[block.text for block in one.content if block.type == "text"] for one in (plain, streamed)]
    assert texts[0] == texts[1]
    counted = client.messages.count_tokens(**asked).input_tokens
    for usage in (plain.usage, streamed.usage):
        assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    return "".join(texts[0])


def test_a_picture_is_seen_in_any_message(messages: anthropic.Anthropic) -> None:
    last, first, middle = PAIRS[0], PAIRS[1], PAIRS[2]
    asked = {
        last: [*GREETING, {"role": "user", "content": [block(*last), said(DESCRIBE)]}],
        first: [
            {"role": "user", "content": [said("Here is an image."), block(*first)]},
            {"role": "assistant", "content": "Thank you."},
            {"role": "user", "content": DESCRIBE},
        ],
        middle: [
            *GREETING,
            {"role": "user", "content": [said("Look at this image."), block(*middle)]},
            {"role": "assistant", "content": "I see it."},
            {"role": "user", "content": DESCRIBE},
        ],
    }
    for (figure, background), chat in asked.items():
        text = answer(messages, chat)
        assert f"{figure} square" in text
        assert f"{background} background" in text


def test_a_picture_of_the_web_is_seen(messages: anthropic.Anthropic, gallery: str) -> None:
    source = {"type": "url", "url": f"http://{gallery}/green/white.png"}
    chat = [*GREETING, {"role": "user", "content": [{"type": "image", "source": source}, said(DESCRIBE)]}]
    assert "green square" in answer(messages, chat)
    same = [*GREETING, {"role": "user", "content": [block("green", "white"), said(DESCRIBE)]}]
    assert answer(messages, same) == answer(messages, chat)


@pytest.mark.parametrize("form", ["base64", "url", "within a document"])
def test_a_picture_that_a_tool_took_is_seen(messages: anthropic.Anthropic, gallery: str, form: str) -> None:
    figure, background = PAIRS[0]
    shown: Any = block(figure, background)
    if form == "url":
        shown = {"type": "image", "source": {"type": "url", "url": f"http://{gallery}/{figure}/{background}.png"}}
    elif form == "within a document":
        shown = {"type": "document", "source": {"type": "content", "content": [shown]}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [said("It worked."), shown]}
    chat: list[dict[str, Any]] = [
        {"role": "user", "content": "Take a picture."},
        {"role": "assistant", "content": [said("I will."), CALL]},
        {"role": "user", "content": [result, said(DESCRIBE)]},
    ]
    assert f"{figure} square" in answer(messages, chat, tools=[CAMERA], tool_choice={"type": "none"})


def test_a_picture_that_is_none_is_named(messages: anthropic.Anthropic, gallery: str) -> None:
    broken = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": text_of(b"GIF89a?")}}
    elsewhere = {"type": "image", "source": {"type": "url", "url": f"http://{gallery}9/a/b.png"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [broken]}
    for content, field in (
        ([said("a"), broken], r"messages\[2\].content\[1\].source.data"),
        ([elsewhere], r"messages\[2\].content\[0\].source.url"),
        ([result], r"messages\[2\].content\[0\].content\[0\].source.data"),
    ):
        chat: Any = [*GREETING, {"role": "user", "content": content}]
        with pytest.raises(anthropic.BadRequestError, match=field):
            messages.messages.create(model="m", max_tokens=4, messages=chat)
