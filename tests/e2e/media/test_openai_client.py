"""The openai client, unmodified, asks about pictures and sound: a model that sees and hears answers rightly."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.e2e.media.parts import NAMES, PAIRS, SECRETS, SYSTEM, assistant, image, secret, sound, user

Chat = Callable[[str, str], list[dict[str, Any]]]

DESCRIBE = "Describe the image."
GREETING = [user("Hello."), assistant("Hello! How can I help you?")]
PLACES: dict[str, Chat] = {
    "first": lambda *colours: [user("Here is an image.", image(*colours)), assistant("Thank you."), user(DESCRIBE)],
    "middle": lambda *colours: [
        *GREETING,
        user("Look at this image.", image(*colours)),
        assistant("I see it."),
        user(DESCRIBE),
    ],
    "last": lambda *colours: [*GREETING, user(image(*colours), DESCRIBE)],
}
"""A chat of a picture in its first, a middle or the last message."""


def answer(client: openai.OpenAI, messages: list[dict[str, Any]], n: int = 24, *, both_ways: bool = False) -> str:
    """The answer. `both_ways`: streamed and plain, which is the same."""
    asked: dict[str, Any] = {"model": "m", "messages": [SYSTEM, *messages], "max_tokens": n, "temperature": 0}
    plain = client.chat.completions.create(**asked)
    text = plain.choices[0].message.content
    if not both_ways:
        return str(text)
    chunks = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    pieces, usage = [], None
    for chunk in chunks:
        pieces += [choice.delta.content or "" for choice in chunk.choices]
        usage = chunk.usage or usage
    assert "".join(pieces) == text
    assert usage.prompt_tokens == plain.usage.prompt_tokens
    return str(text)


def answers(
    client: openai.OpenAI, chats: list[list[dict[str, Any]]], n: int = 24, *, both_ways: bool = False
) -> list[str]:
    """Those of several chats, asked at a time."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda messages: answer(client, messages, n, both_ways=both_ways), chats))


@pytest.mark.parametrize("place", PLACES)
def test_figure_and_background_are_seen_in_any_message(client: openai.OpenAI, place: str) -> None:
    said = answers(client, [PLACES[place](*pair) for pair in PAIRS])
    for (figure, background), text in zip(PAIRS, said, strict=True):
        assert f"{figure} square" in text, said
        assert f"{background} background" in text, said


def test_two_pictures_of_one_message_are_told_apart(client: openai.OpenAI) -> None:
    pairs = list(zip(NAMES, NAMES[1:] + NAMES[:1], strict=True))
    grounds = [next(c for c in ("black", "white", "gray") if c not in pair) for pair in pairs]
    chats = [
        [user("Compare these images.", image(a, ground), image(b, ground), "What colors are the squares?")]
        for (a, b), ground in zip(pairs, grounds, strict=True)
    ]
    for (a, b), text in zip(pairs, answers(client, chats, 40, both_ways=True), strict=True):
        assert f"{a} square" in text, text
        assert f"{b} square" in text, text
        assert text.index(f"{a} square") < text.index(f"{b} square"), text


def test_sound_is_heard(client: openai.OpenAI) -> None:
    question = "What is the secret word?"
    before = [[user(sound(secret(word)), question)] for word in SECRETS]
    behind = [[user(question, sound(secret(word)))] for word in SECRETS]
    earlier = [[user("Listen.", sound(secret(word))), assistant("I heard it."), user(question)] for word in SECRETS]
    for word, *texts in zip(SECRETS, *(answers(client, chats) for chats in (before, behind, earlier)), strict=True):
        assert all(word in text for text in texts), texts


def test_picture_and_sound_together(client: openai.OpenAI) -> None:
    chats = [
        [user("Repeat what you see and hear.", image(figure, "black"), sound(secret(word)))]
        for figure, word in zip(NAMES, SECRETS, strict=False)
    ]
    for figure, word, text in zip(NAMES, SECRETS, answers(client, chats, 40, both_ways=True), strict=False):
        assert f"{figure} square" in text, text
        assert word in text, text


def test_what_a_text_says_of_markers_is_text(client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert models[0].architecture["input_modalities"] == ["text", "image", "audio"]
    text = "<__media__> <image> [IMG] <|image_pad|>"
    with_words = client.chat.completions.create(
        model="m", messages=[SYSTEM, user(text, image("red", "blue"))], max_tokens=1, temperature=0
    )
    without = client.chat.completions.create(model="m", messages=[SYSTEM, user(text)], max_tokens=1, temperature=0)
    assert with_words.usage.prompt_tokens == without.usage.prompt_tokens + 16


def test_usage_tells_of_sound(client: openai.OpenAI) -> None:
    asked = [SYSTEM, user("What is the secret word?", sound(secret("banana")), image("red", "blue"))]
    usage = client.chat.completions.create(model="m", messages=asked, max_tokens=1).usage
    assert usage.prompt_tokens_details.audio_tokens == 6
    assert usage.prompt_tokens > 22


def test_a_transcript_is_what_was_said(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "m",
        "file": ("speech.wav", secret("banana")),
        "prompt": "What is the secret word?",
        "extra_body": {"max_tokens": 8},
    }
    whole = client.audio.transcriptions.create(**asked)
    assert "banana" in whole.text
    assert whole.usage.input_token_details.audio_tokens == 6
    assert client.audio.transcriptions.create(**asked, response_format="text") == whole.text
    *deltas, done = client.audio.transcriptions.create(**asked, stream=True)
    assert "".join(event.delta for event in deltas) == done.text == whole.text
    assert done.usage.input_tokens == whole.usage.input_tokens
