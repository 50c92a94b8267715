"""OpenAI's Responses, by its unmodified client, with pictures: in messages, from tools, and in stored conversations."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.responses import Response

from tests.e2e.media.parts import PAIRS, SYSTEM, png, text_of

DESCRIBE = "Describe the image."
GREETING = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello! How can I help you?"}]
CAMERA: Any = {"type": "function", "name": "take_picture", "parameters": {"type": "object", "properties": {}}}
CALL = {"type": "function_call", "call_id": "c1", "name": "take_picture", "arguments": "{}"}


def part(figure: str, background: str, **fields: str) -> dict[str, Any]:
    url = "data:image/png;base64," + text_of(png(figure, background))
    return {"type": "input_image", "image_url": url, **fields}


def said(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def answer(client: openai.OpenAI, items: Any, **fields: Any) -> Response:
    """The response, whose text is the same streamed and plain, to a prompt that is as long as it was counted."""
    asked: dict[str, Any] = {"model": "m", "instructions": SYSTEM["content"], "input": items, **fields}
    more: dict[str, Any] = {"max_output_tokens": 24, "temperature": 0}
    plain = client.responses.create(**asked, **more)
    events = list(client.responses.create(**asked, **more, stream=True))
    streamed = events[-1].response
    assert streamed.output_text == plain.output_text
    counted = client.responses.input_tokens.count(**asked).input_tokens
    assert counted == plain.usage.input_tokens == streamed.usage.input_tokens
    return plain


def test_a_picture_is_seen_in_any_message(client: openai.OpenAI) -> None:
    last, first, middle = PAIRS[4], PAIRS[5], PAIRS[6]
    asked = {
        last: [*GREETING, {"role": "user", "content": [part(*last, detail="auto"), said(DESCRIBE)]}],
        first: [
            {"role": "user", "content": [said("Here is an image."), part(*first)]},
            {"role": "assistant", "content": "Thank you."},
            {"role": "user", "content": DESCRIBE},
        ],
        middle: [
            *GREETING,
            {"type": "message", "role": "user", "content": [said("Look at this image."), part(*middle)]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "I see it."}]},
            {"role": "user", "content": DESCRIBE},
        ],
    }
    for (figure, background), items in asked.items():
        text = answer(client, items).output_text
        assert f"{figure} square" in text
        assert f"{background} background" in text


def test_a_picture_of_the_web_is_seen(client: openai.OpenAI, gallery: str) -> None:
    by_url = {"type": "input_image", "image_url": f"http://{gallery}/green/white.png", "detail": "high"}
    texts = [
        answer(client, [*GREETING, {"role": "user", "content": [one, said(DESCRIBE)]}]).output_text
        for one in (by_url, part("green", "white"))
    ]
    assert "green square" in texts[0]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("kind", ["function", "custom_tool"])
def test_a_picture_that_a_tool_took_is_seen(client: openai.OpenAI, gallery: str, kind: str) -> None:
    figure, background = PAIRS[7]
    by_url = {"type": "input_image", "image_url": f"http://{gallery}/{figure}/{background}.png"}
    call: Any = CALL if kind == "function" else {**CALL, "type": "custom_tool_call", "input": "now"}
    for shown in (part(figure, background), by_url):
        items = [
            {"role": "user", "content": "Take a picture."},
            call,
            {"type": f"{call['type']}_output", "call_id": "c1", "output": [said("It worked."), shown]},
            {"role": "user", "content": DESCRIBE},
        ]
        text = answer(client, items, tools=[CAMERA], tool_choice="none").output_text
        assert f"{figure} square" in text
        assert f"{background} background" in text


def test_a_stored_conversation_has_its_pictures(client: openai.OpenAI) -> None:
    """A later response is asked about a picture of an earlier one, and neither encodes nor computes it again."""
    figure, background = PAIRS[8]
    first = answer(client, [*GREETING, {"role": "user", "content": [said("Here it is."), part(figure, background)]}])
    later = answer(client, DESCRIBE, previous_response_id=first.id)
    assert f"{figure} square" in later.output_text
    assert later.usage.input_tokens_details.cached_tokens >= first.usage.input_tokens
    kept = client.responses.input_items.list(first.id).data
    pictures = [one for item in kept for one in item.content if one.type == "input_image"]
    assert [one.image_url for one in pictures] == [part(figure, background)["image_url"]]


def test_pictures_count_where_a_conversation_is_made_shorter(client: openai.OpenAI) -> None:
    """With 1,024 tokens of context: 16 for each picture, and few for the texts."""
    turns: list[Any] = []
    for _ in range(12):
        turns += [
            {"role": "user", "content": [part(*PAIRS[0])] * 6},
            {"role": "assistant", "content": "Yes."},
        ]
    turns.append({"role": "user", "content": [part(*PAIRS[9]), said(DESCRIBE)]})
    with pytest.raises(openai.BadRequestError, match="context"):
        client.responses.create(model="m", input=turns, max_output_tokens=24)
    told = client.responses.create(model="m", input=turns, truncation="auto", max_output_tokens=24, temperature=0)
    assert 0 < told.model_extra["dropped_turns"] < 12
    assert told.usage.input_tokens <= 1024 - 24
    assert told.usage.input_tokens > 700, "as much as fits stays"


def test_a_picture_that_is_none_is_named(client: openai.OpenAI, gallery: str) -> None:
    broken = {"type": "input_image", "image_url": "data:image/png;base64," + text_of(b"GIF89a?")}
    elsewhere = {"type": "input_image", "image_url": f"http://{gallery}9/a/b.png"}
    for items, field in (
        ([{"role": "user", "content": [said("a"), broken]}], r"input\[0\].content\[1\].image_url"),
        ([{"role": "user", "content": [elsewhere]}], r"input\[0\].content\[0\].image_url"),
        ([CALL, {"type": "function_call_output", "call_id": "c1", "output": [broken]}], r"input\[1\].output\[0\]"),
        ([{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}], r"input\[0\].content\[0\].file_id"),
    ):
        asked: Any = items
        with pytest.raises(openai.BadRequestError, match=field):
            client.responses.create(model="m", input=asked, max_output_tokens=4)
